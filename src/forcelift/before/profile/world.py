"""What a profile works on and with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
from msgspec import Struct

from forcelift.before.profile.records import Acceptance
from forcelift.jobs.work import TableWork
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import FieldDescribe
from forcelift.protocols.source import Source
from forcelift.rules import LookupInfo, ParentKeys

MakeParents = Callable[[LookupInfo, Callable[[], pl.LazyFrame]], ParentKeys]
"""Gives the parents that a lookup may name: those of a frame (column `key`), asked for once, and those in the org."""


class ProfileWorld(Struct, frozen=True, kw_only=True):
    """Everything that a profile touches.

    Attributes:
        works: The tables, in load order.
        fields: Of each table the fields of its object.
        codecs: Of each table the encoding of text that comes as bytes and that no rule reads.
        as_of: Later dates are in the future.
        sample_percent: How much of each table is read; None is all.
        all_columns: Whether columns that go nowhere are looked at too.
        export: A folder for the keys of all findings; None to keep five examples only.
        accepted: By name the findings that somebody accepted.
        through: Hands on the batches of a read no faster than the plan allows.
    """

    source: Source
    clock: Clock
    works: Mapping[str, TableWork]
    fields: Mapping[str, Mapping[str, FieldDescribe]]
    codecs: Mapping[str, str]
    make_parents: MakeParents
    as_of: datetime
    scratch: Path
    memory_mb: int
    batch_rows: int
    slice_rows: int = 2_000_000
    sample_percent: Decimal | None = None
    all_columns: bool = False
    export: Path | None = None
    accepted: Mapping[str, Acceptance]
    through: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
    tell: Callable[[str], None] = lambda sentence: None
