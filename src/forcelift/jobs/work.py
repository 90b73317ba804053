"""What handlers need to know of a table: its plan, its compiled rules, and the field that joins answers to rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from forcelift.jobs.tracks import TableSpec
from forcelift.plan.models import TablePlan
from forcelift.protocols.org import FieldDescribe
from forcelift.protocols.source import SourceTable
from forcelift.rules import CompiledTable
from forcelift.storage import segment


class TableWork(Struct, frozen=True, kw_only=True):
    """One table, ready to be worked on."""

    spec: TableSpec
    plan: TablePlan
    source: SourceTable
    rules: CompiledTable
    key_field: FieldDescribe

    @property
    def null_text(self) -> str:
        """What stands in a CSV cell for null: `#N/A` clears the field, nothing leaves it as it is."""
        return "#N/A" if self.plan.nulls == "clear" else ""

    @property
    def personal_fields(self) -> frozenset[str]:
        """Fields, as they are sent, that hold what the plan calls personal, or may be made of it."""
        personal = set(self.rules.personal_columns)
        mapped = {target for source, target in self.rules.targets.items() if source in personal}
        keys = {self.key_field.name} if personal.intersection(self.plan.key) else set[str]()
        return frozenset(mapped | keys | set(self.plan.computed))


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedNames:
    """Where a chunk's files are written in storage. Names are fixed, so that a repeated step replaces and never adds.

    On a shared batch each runner writes in a folder of its own, named by its fence: one that was taken over and does
    not know it yet must never replace a file that is sealed. What is read has the name that was recorded.
    """

    folder: str
    fence: int | None = None

    rows: str = field(init=False)
    refused: str = field(init=False)
    links: str = field(init=False)
    link_rows: str = field(init=False)
    own: str = field(init=False)

    def __post_init__(self) -> None:
        own = self.folder if self.fence is None else f"{self.folder}/r{self.fence:04d}"
        object.__setattr__(self, "own", own)
        for name in ("rows", "refused", "links", "link_rows"):
            object.__setattr__(self, name, f"{own}/{name}.parquet")

    def part(self, number: int) -> str:
        return f"{self.own}/load.{number:02d}.csv"

    def link_part(self, number: int) -> str:
        return f"{self.own}/link.{number:02d}.csv"

    def resend_part(self, attempt: int, number: int, *, links: bool) -> str:
        return f"{self.own}/{'link' if links else 'load'}.attempt{attempt}.{number:02d}.csv"

    def answers(self, job_no: int) -> str:
        return f"{self.own}/answers.{job_no}.parquet"


def staging_folder(batch_id: str) -> str:
    """Where a batch's staged files lie in storage."""
    return f"staging/{segment(batch_id)}"


def staged_names(batch_id: str, table: str, chunk_no: int, *, fence: int | None = None) -> StagedNames:
    """The names of one chunk's files, on a shared batch those of one runner; any table name is safe in them."""
    return StagedNames(folder=f"{staging_folder(batch_id)}/{segment(table)}/c{chunk_no:06d}", fence=fence)


def duplicates_name(batch_id: str, table: str, *, fence: int | None = None) -> str:
    """Where the decisions on a table's repeated keys are written."""
    owner = "" if fence is None else f".r{fence:04d}"
    return f"{staging_folder(batch_id)}/{segment(table)}/duplicates{owner}.parquet"
