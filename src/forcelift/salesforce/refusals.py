"""Salesforce's refusals as the engine reads them, by the error catalogue."""

from __future__ import annotations

import polars as pl

from forcelift.salesforce.catalogue import is_transient
from forcelift.salesforce.results import scrub_series, split_error_expr
from forcelift.salesforce.transient import transient_expr

LOCK_CODE = "UNABLE_TO_LOCK_ROW"


class CatalogueReader:
    """A `RefusalReader` over the catalogue of this package."""

    def read(self, errors: pl.Series) -> pl.DataFrame:
        """Columns `code`, `message` (scrubbed), `fields`, `transient`, `locked`; one line per error, in order."""
        parts = (
            errors.alias("error").to_frame().select(split_error_expr(pl.col("error")).alias("parts")).unnest("parts")
        )
        judged = parts.with_columns(
            transient=transient_expr(pl.col("code"), pl.col("message")), locked=pl.col("code") == LOCK_CODE
        )
        return judged.with_columns(scrub_series(judged["message"]).alias("message"))

    def job_error_passes(self, message: str) -> bool:
        """Whether a job that failed with this `errorMessage` may pass unchanged, such as after a storm of locks."""
        code, _, text = message.partition(":")
        return is_transient(code.strip(), text.strip())
