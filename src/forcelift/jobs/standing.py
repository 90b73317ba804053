"""Rows of a chunk that a rollback left in the org: when the chunk is loaded again they are not sent, and stay counted.

Reads:   the ledger file under which the chunk was loaded before.
Gives:   keys to leave out of the upload, and the lines that go over into the new ledger as they were.
"""

from __future__ import annotations

import polars as pl
from msgspec.structs import replace

from forcelift.audit import AuditStore
from forcelift.jobs.settlement import Settlement
from forcelift.ledger import LEDGER, Ledger
from forcelift.protocols.org import FieldDescribe
from forcelift.rules import Cleaned, normalised_key
from forcelift.storage import Storage

STANDS = "kept"
"""Outcome of such a row while it is staged; its ledger line says what it really is."""


def standing_rows(audit: AuditStore, ledger: Ledger, storage: Storage, audit_id: int) -> pl.DataFrame:
    """Lines, as `LEDGER` has them, of the rows that stand; none if the chunk was never rolled back."""
    earlier = audit.predecessor(audit_id)
    if earlier is None or earlier.ledger_file is None or earlier.ledger_sha256 is None:
        return pl.DataFrame(schema=LEDGER)
    storage.verify(earlier.ledger_file, earlier.ledger_sha256)
    return ledger.standing([earlier.ledger_file]).collect()


def leave_out(cleaned: Cleaned, field: FieldDescribe, norms: pl.Series) -> Cleaned:
    """Take rows with these keys out of what is sent. A second copy of a key stays a duplicate."""
    rows = cleaned.rows
    if not norms.len():
        return cleaned
    stands = normalised_key(field, rows["key"]).is_in(norms.implode()).fill_null(False)
    stands &= ~(rows["outcome"] == "duplicate").fill_null(False)
    out = rows.select("row").filter(stands)
    if not out.height:
        return cleaned
    told = [
        pl.when(stands).then(pl.lit(STANDS)).otherwise("outcome").alias("outcome"),
        *(pl.when(stands).then(None).otherwise(name).alias(name) for name in ("code", "fields", "details")),
    ]
    links = cleaned.links
    return replace(
        cleaned,
        rows=rows.with_columns(told),
        accepted=cleaned.accepted.join(out, on="row", how="anti", maintain_order="left"),
        links=links.join(out, on="row", how="anti", maintain_order="left") if links is not None else None,
    )


def with_standing(settlement: Settlement, standing: pl.DataFrame, field: FieldDescribe) -> Settlement:
    """Give the rows that stand their lines of before: outcome, Id, hash, job, and why."""
    lines = standing.with_columns(norm=normalised_key(field, standing["key"])).unique("norm", keep="first")
    names = [name for name in LEDGER.names() if name not in ("row", "key")]
    earlier = lines.select("norm", *(pl.col(name).alias(f"{name}__was") for name in names))
    ledger = settlement.ledger.with_columns(norm=normalised_key(field, settlement.ledger["key"]))
    stands = pl.col("outcome") == STANDS
    filled = (
        ledger.join(earlier, on="norm", how="left", maintain_order="left")
        .with_columns(pl.when(stands).then(f"{name}__was").otherwise(name).alias(name) for name in names)
        .select(LEDGER.names())
        .cast(LEDGER)
    )
    return replace(settlement, ledger=filled, outcomes=dict(filled.group_by("outcome").len().iter_rows()))
