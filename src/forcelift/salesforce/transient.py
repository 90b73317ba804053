"""Whether refused rows may be accepted later, over whole columns of errors."""

from __future__ import annotations

import polars as pl

from forcelift.salesforce.catalogue import Passing, by_code, general


def transient_expr(code: pl.Expr, message: pl.Expr) -> pl.Expr:
    """`is_transient` for columns. Null codes are not transient.

    Codes that never pass need no term; a code whose verdict hangs on the message gets a condition for each text.
    """
    plain = code.str.to_lowercase().str.replace_all("_", "", literal=True)
    result = pl.lit(value=False)
    for name, group in by_code().items():
        verdicts = {entry.advice.passing is Passing.YES for entry in group}
        if verdicts == {False}:
            continue
        verdict = pl.lit(value=general(group).advice.passing is Passing.YES)
        # Later entries are asked last, so the first entry whose text fits must be the outermost condition.
        for entry in reversed(group):
            if entry.pattern is not None and verdicts != {True}:
                said = message.fill_null("").str.contains(entry.pattern.pattern)
                verdict = pl.when(said).then(pl.lit(value=entry.advice.passing is Passing.YES)).otherwise(verdict)
        result = result | ((plain == name).fill_null(value=False) & verdict)
    return result | plain.str.starts_with("txnsecurity").fill_null(value=False)
