"""How the engine reads what an org refused, without knowing an org's codes by heart."""

from __future__ import annotations

from typing import Protocol

import polars as pl


class RefusalReader(Protocol):
    """Reads error texts of result files. Implemented beside the error catalogue of the adapter."""

    def read(self, errors: pl.Series) -> pl.DataFrame:
        """Take error texts apart, one line per error, in order.

        Columns `code`, `message` (scrubbed of record values), `fields`, `transient`, `locked`. `transient` marks
        refusals that may pass unchanged, `locked` those among them that came from locks.
        """
        ...

    def job_error_passes(self, message: str) -> bool:
        """Whether a whole job that failed with this message may pass when it is sent again unchanged."""
        ...
