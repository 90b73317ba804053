"""Forcelift moves very large database tables into Salesforce and accounts for every row."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from forcelift.version import __version__

if TYPE_CHECKING:
    from forcelift.mending.retrying import RetryOptions, retry_failed
    from forcelift.undoing.functions import full_rollback, rollback_failed_batch
    from forcelift.validating.functions import (
        validate_aggregates,
        validate_business_rules,
        validate_counts,
        validate_sample_records,
    )

_PLACES = {
    "RetryOptions": "mending.retrying",
    "full_rollback": "undoing.functions",
    "retry_failed": "mending.retrying",
    "rollback_failed_batch": "undoing.functions",
    "validate_aggregates": "validating.functions",
    "validate_business_rules": "validating.functions",
    "validate_counts": "validating.functions",
    "validate_sample_records": "validating.functions",
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
