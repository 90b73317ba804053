"""Source, twin and loader together, with what stood in the org before the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl
import pytest
from tests.faults.fault_checks import check_end
from tests.faults.fault_data import (
    KEYS,
    OBJECTS,
    OTHER_OBJECT,
    SALE,
    SALE_OBJECT,
    SCHEMA,
    TENANT,
    Expected,
    make_source,
)
from tests.faults.fault_loader import LoaderProcess
from tests.faults.fault_twin import TwinProcess, org_client


class MakeLoader(Protocol):
    """What makes the loader of a world."""

    def __call__(self, folder: Path, twin: TwinProcess, *, chunk_rows: int) -> LoaderProcess: ...


@dataclass(frozen=True, kw_only=True, repr=False)
class World:
    """Everything that a fault test works with. `others_jobs` stand open in the org and are not ours to touch."""

    seed: int
    twin: TwinProcess
    loader: LoaderProcess
    expected: Expected
    others_jobs: set[str]

    def check_end(self, *, open_jobs: set[str] | None = None) -> None:
        """The batch has ended: check everything against the org. `open_jobs` are further ones that stand open."""
        with org_client(self.twin) as org:
            check_end(self.loader, org, self.expected, open_jobs=self.others_jobs | (open_jobs or set()))


@contextmanager
def fault_world(
    folder: Path,
    *,
    seed: int,
    rows: int,
    chunk_rows: int,
    pace: str = "fast",
    make_loader: MakeLoader = LoaderProcess,
) -> Iterator[World]:
    """Make source, org and plan. The seed is printed, and stands in front of what fails."""
    print(f"seed {seed}")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SF_CLIENT_SECRET", "loader-secret")
        yield from _world(folder, seed=seed, rows=rows, chunk_rows=chunk_rows, pace=pace, make_loader=make_loader)


def _world(
    folder: Path, *, seed: int, rows: int, chunk_rows: int, pace: str, make_loader: MakeLoader
) -> Iterator[World]:
    expected = make_source(folder / "source.duckdb", seed=seed, rows=rows)
    twin = TwinProcess(folder, schema=SCHEMA, pace=pace, seed=seed)
    twin.start()
    try:
        others_jobs = _put_what_stood_before(twin, expected)
        loader = make_loader(folder, twin, chunk_rows=chunk_rows)
        try:
            yield World(seed=seed, twin=twin, loader=loader, expected=expected, others_jobs=others_jobs)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{loader.output()[-4000:]}") from error
        finally:
            loader.close()
    finally:
        twin.stop()


def _put_what_stood_before(twin: TwinProcess, expected: Expected) -> set[str]:
    """Records to update, records that hold unique values, and open jobs that are not the loader's."""
    with org_client(twin, client_id="other") as org:
        for table in (TENANT, SALE):
            key = KEYS[table]
            org.load(OBJECTS[table], key, expected.existing[table].with_columns(Name=pl.lit("before")))
            holders = expected.holders[table].rename({"key": key, "serial": "Serial__c"})
            org.load(OBJECTS[table], key, holders)
        look_alike = org.create_job(SALE_OBJECT, KEYS[SALE])
    with org_client(twin) as org:
        of_another_object = org.create_job(OTHER_OBJECT, "Code__c")
    return {look_alike, of_another_object}
