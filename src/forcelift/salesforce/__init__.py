"""The Salesforce adapter: sign-in, REST, SOQL, Bulk API 2.0, and the catalogue of Salesforce's errors."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forcelift.salesforce.auth import AuthSettings
    from forcelift.salesforce.catalogue import Remedy, explain, remedy
    from forcelift.salesforce.client import HttpSettings
    from forcelift.salesforce.org import API_VERSION, SalesforceOrg, connect
    from forcelift.salesforce.refusals import CatalogueReader

_PLACES = {
    "AuthSettings": "auth",
    "Remedy": "catalogue",
    "explain": "catalogue",
    "remedy": "catalogue",
    "HttpSettings": "client",
    "API_VERSION": "org",
    "SalesforceOrg": "org",
    "connect": "org",
    "CatalogueReader": "refusals",
}

__all__ = [
    "API_VERSION",
    "AuthSettings",
    "CatalogueReader",
    "HttpSettings",
    "Remedy",
    "SalesforceOrg",
    "connect",
    "explain",
    "remedy",
]


def __getattr__(name: str) -> Any:
    """Imported one by one when asked for: who wants the catalogue's words needs no HTTP."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
