"""What a report, a validation, a rollback or a page is about: one batch, or all batches of a project. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from forcelift.audit.records import Batch, BatchMode


class Scope(Struct, frozen=True, kw_only=True):
    """One batch, or the batches of a project that sent rows into one org.

    Attributes:
        batches: At least one, in the order in which they were begun. Of a project neither dry runs, which sent
            nothing, nor batches into another org than the one of its newest batch.
        is_project: Whether a whole project was asked for; it may have one batch only.
        other_orgs: Of a project the batches that are left out since they went into other orgs.
    """

    batches: tuple[Batch, ...]
    is_project: bool
    other_orgs: tuple[Batch, ...] = ()

    def __post_init__(self) -> None:
        if not self.batches:
            raise ValueError("a scope has at least one batch")

    @property
    def newest(self) -> Batch:
        """The batch begun last."""
        return self.batches[-1]

    @property
    def batch_ids(self) -> tuple[str, ...]:
        """Ids of the batches, in the order in which they were begun."""
        return tuple(batch.batch_id for batch in self.batches)

    @property
    def project(self) -> str:
        """The project's name."""
        return self.newest.project

    @property
    def org_id(self) -> str:
        """The org that all of its batches went into."""
        return self.newest.org_id

    @property
    def name(self) -> str:
        """In a sentence: ``batch `B` `` or ``project `P` ``."""
        return f"project `{self.project}`" if self.is_project else f"batch `{self.newest.batch_id}`"


def batch_scope(batch: Batch) -> Scope:
    """The scope of one batch, whatever its mode."""
    return Scope(batches=(batch,), is_project=False)


def project_scope(batches: Sequence[Batch]) -> Scope | None:
    """The scope of a project's batches, given in the order in which they were begun; None if none has sent rows."""
    loads = [batch for batch in batches if batch.mode is not BatchMode.DRY_RUN]
    if not loads:
        return None
    org_id = loads[-1].org_id
    return Scope(
        batches=tuple(batch for batch in loads if batch.org_id == org_id),
        is_project=True,
        other_orgs=tuple(batch for batch in loads if batch.org_id != org_id),
    )
