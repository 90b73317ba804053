"""Forcelift moves very large database tables into Salesforce and accounts for every row."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from forcelift.version import __version__

if TYPE_CHECKING:
    from forcelift.functions import (
        validate_aggregates,
        validate_business_rules,
        validate_counts,
        validate_sample_records,
    )
    from forcelift.retrying import RetryOptions, retry_failed
    from forcelift.rollbacks import full_rollback, rollback_failed_batch

_PLACES = {
    "RetryOptions": "retrying",
    "full_rollback": "rollbacks",
    "retry_failed": "retrying",
    "rollback_failed_batch": "rollbacks",
    "validate_aggregates": "functions",
    "validate_business_rules": "functions",
    "validate_counts": "functions",
    "validate_sample_records": "functions",
}

__all__ = [
    "RetryOptions",
    "__version__",
    "full_rollback",
    "retry_failed",
    "rollback_failed_batch",
    "validate_aggregates",
    "validate_business_rules",
    "validate_counts",
    "validate_sample_records",
]


def __getattr__(name: str) -> Any:
    """Imported when asked for: the command line begins without what a function needs."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
