"""`duplicates: merge` against a plain computation, whatever the order of the rows, the chunks and the batches."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rules_support import AS_OF, compiled, describe_field, object_of, source_column

from forcelift.protocols.source import ColumnKind
from forcelift.rules import ChunkCleaner, CompiledTable, DuplicateScan
from forcelift.rules.merge import MergedColumn, merged_columns

SCHEMA = {
    "ID": pl.String,
    "AT": pl.Datetime("us"),
    "LAST": pl.String,
    "OLDEST": pl.String,
    "ANY": pl.String,
    "LONG": pl.String,
    "LOW": pl.Float64,
    "HIGH": pl.String,
    "DAY": pl.String,
    "TOTAL": pl.Decimal(38, 6),
    "TEXTS": pl.String,
}
RULES = {
    "OLDEST": "first", "ANY": "not_null", "LONG": "longest", "LOW": "min", "HIGH": "max", "DAY": "max",
    "TOTAL": "sum", "TEXTS": "sum",
}  # fmt: skip
KINDS = {"AT": ColumnKind.TIMESTAMP, "LOW": ColumnKind.FLOAT, "TOTAL": ColumnKind.DECIMAL}


@cache
def table_of(changed_at: str | None) -> CompiledTable:
    amount = {"precision": 18, "scale": 3}
    fields = {name: describe_field(f"{name}__c", length=80) for name in ("LAST", "OLDEST", "ANY", "LONG")}
    fields |= {name: describe_field(f"{name}__c", "double", **amount) for name in ("LOW", "HIGH", "TOTAL", "TEXTS")}
    fields |= {"DAY": describe_field("DAY__c", "date"), "AT": describe_field("AT__c", "datetime")}
    mapped: dict[str, Any] = {"ID": {"field": "Key__c"}, "AT": {"field": "AT__c"}, "LAST": {"field": "LAST__c"}}
    for name, rule in RULES.items():
        mapped[name] = {"field": f"{name}__c", "merge": rule}
    mapped["DAY"]["date_format"] = "%d/%m/%Y"
    return compiled(
        mapped,
        columns=tuple(source_column(name, KINDS.get(name, ColumnKind.TEXT)) for name in SCHEMA),
        describe=object_of(*fields.values()),
        timezone="UTC",
        duplicates="merge",
        changed_at=changed_at,
    )


def merged(
    table: CompiledTable, frame: pl.DataFrame, chunk_rows: int, batch_rows: int
) -> tuple[list[Any], list[Any], dict[Any, int]]:
    chunks = list(frame.iter_slices(chunk_rows))
    changes: dict[Any, int] = defaultdict(int)
    sent: list[Any] = []
    outcomes: list[Any] = []
    with tempfile.TemporaryDirectory() as name, DuplicateScan(Path(name) / "scan", memory_mb=128) as scan:
        for number, chunk in enumerate(chunks):
            scan.add(number, table.keys(chunk))
        for number in scan.duplicate_norms().chunks:
            for batch in chunks[number].iter_slices(batch_rows):
                scan.add_content(number, table.content(batch))
        decisions = None
        if scan.duplicate_norms().keys:
            decisions = scan.decide(table.plan.duplicates, table.merges).save(Path(name) / "decisions.parquet")
        for number, chunk in enumerate(chunks):
            cleaner = ChunkCleaner(table, chunk_no=number, as_of=AS_OF, duplicates=decisions, parents={})
            for batch in chunk.iter_slices(batch_rows):
                cleaned = cleaner.clean(batch)
                sent += cleaned.accepted.drop("row").rows(named=True)
                outcomes += cleaned.rows.select("key", "outcome", "code").rows()
                for what, count in cleaned.changes.items():
                    changes[what] += count
            cleaner.finish()
    return sorted(sent, key=lambda line: str(line["Key__c"]).lower()), sorted(outcomes, key=str), dict(changes)


amount = st.none() | st.integers(-(10**9), 10**9).map(lambda cents: Decimal(cents) / 1000)
word = st.none() | st.sampled_from(["", " ", "x", " xy", "xyz", "é", "กขค", "b"])
row = st.fixed_dictionaries(
    {
        "ID": st.sampled_from(["a", "A ", "b", "c"]),
        "AT": st.none() | st.sampled_from([datetime(2024, 1, day) for day in (1, 2, 3)]),
        "LAST": word,
        "OLDEST": word,
        "ANY": word,
        "LONG": word,
        "LOW": amount.map(lambda value: None if value is None else float(value)),
        "HIGH": amount.map(lambda value: None if value is None else str(value)),
        "DAY": st.sampled_from([None, "", "31/12/2001", "01/02/2010", "02/01/2010"]),
        "TOTAL": amount,
        "TEXTS": amount.map(lambda value: None if value is None else f" {value} "),
    }
)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(row, min_size=2, max_size=14),
    st.sampled_from(["AT", None]),
    st.integers(1, 5),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_copies_merge_alike_in_any_order_and_chunks(
    rows: list[dict[str, Any]], changed_at: str | None, chunk_rows: int, batch_rows: int, random: Any
) -> None:
    table = table_of(changed_at)
    frame = pl.DataFrame(rows, schema=SCHEMA)
    sent, outcomes, changes = merged(table, frame, len(rows), len(rows))
    shuffled = list(rows)
    random.shuffle(shuffled)
    again = merged(table, pl.DataFrame(shuffled, schema=SCHEMA), chunk_rows, batch_rows)
    assert again[0] == sent
    assert again[2] == changes
    copies: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in rows:
        copies[one["ID"].strip().lower()].append(one)
    assert [line["Key__c"].lower() for line in sent] == sorted(copies)
    assert sum(outcome == "duplicate" for _, outcome, _ in outcomes) == len(rows) - len(copies)
    for line, group in zip(sent, (copies[key] for key in sorted(copies)), strict=True):
        check(line, group, changed_at)


def check(line: dict[str, Any], group: list[dict[str, Any]], changed_at: str | None) -> None:
    """Compare with what Python makes of the copies, where it does not depend on how ties are decided."""

    def numbers(name: str) -> list[Decimal]:
        return [Decimal(str(one[name]).strip()) for one in group if one[name] is not None]

    def is_number(found: str | None, wanted: Decimal | None) -> bool:
        return found is None if wanted is None else found is not None and Decimal(found) == wanted

    for name in ("TOTAL", "TEXTS"):
        assert is_number(line[f"{name}__c"], sum(numbers(name)) if numbers(name) else None)
    assert is_number(line["LOW__c"], min(numbers("LOW"), default=None))
    assert is_number(line["HIGH__c"], max(numbers("HIGH"), default=None))
    days = [datetime.strptime(one["DAY"], "%d/%m/%Y") for one in group if one["DAY"]]
    assert line["DAY__c"] == (f"{max(days):%Y-%m-%d}" if days else None)
    texts = [(one["LONG"] or "").strip() for one in group]
    assert len(line["LONG__c"] or "") == max(map(len, texts))
    assert line["LONG__c"] is None or line["LONG__c"] in texts
    present = {(one["ANY"] or "").strip() for one in group} - {""}
    assert line["ANY__c"] in (present or {None})
    if changed_at is not None:
        times = [one["AT"] or datetime.min for one in group]
        if times.count(max(times)) == 1:
            newest = group[times.index(max(times))]
            assert (line["LAST__c"] or "") == (newest["LAST"] or "").strip()
        if times.count(min(times)) == 1:
            oldest = group[times.index(min(times))]
            assert (line["OLDEST__c"] or "") == (oldest["OLDEST"] or "").strip()


def total_of(values: list[str]) -> str | None:
    """The sum of texts through the limbs that the scan adds up."""
    table = summing()
    (merge,) = table.merges
    assert isinstance(merge, MergedColumn)
    frame = pl.DataFrame(merge.carried(pl.Series("V", values, dtype=pl.String)))
    limbs = frame.select(pl.col("^l0_.*$").sum()).with_columns(pl.lit(None, dtype=pl.String).alias("v0"))
    text, _ = merge.apply(pl.Series(["0"]), pl.Series([0], dtype=pl.UInt32), limbs)
    found: str | None = text[0]
    return found


@cache
def summing() -> CompiledTable:
    return compiled(
        {"ID": {"field": "Key__c"}, "V": {"field": "V__c", "merge": "sum"}},
        columns=(source_column("ID"), source_column("V")),
        describe=object_of(describe_field("V__c", "double", precision=0, scale=18)),
        duplicates="merge",
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.decimals(-(10**30), 10**30, places=12) | st.integers(-99, 99).map(Decimal), min_size=1, max_size=20))
def test_sums_are_exact(values: list[Decimal]) -> None:
    found = total_of([f"{value:f}" for value in values])
    units = sum(map(_units, values))
    assert found is not None
    assert _units(Decimal(found)) == units


def _units(value: Decimal) -> int:
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    number = int("".join(map(str, digits)) or "0") * 10 ** (exponent + 12)
    return -number if sign else number


def test_the_default_needs_no_merging() -> None:
    table = table_of("AT")
    names = [merge.name for merge in merged_columns(table.plan, dict(table.columns))]
    assert names == list(RULES)
    assert [merge.name for merge in table_of(None).merges] == [name for name in RULES if name != "OLDEST"]
