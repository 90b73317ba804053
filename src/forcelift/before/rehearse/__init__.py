"""What a twin of the plan's org can foretell of a load, and what it cannot."""

from forcelift.before.rehearse.by_ids import MappedId, ids_lines, mapped_ids, with_optional, without_ids
from forcelift.before.rehearse.folders import scratch_folder
from forcelift.before.rehearse.shape import (
    LOOKED_UP,
    Seed,
    bare_document,
    narrowed_picklists,
    seeds,
    unknowable,
    users_document,
)

__all__ = [
    "LOOKED_UP",
    "MappedId",
    "Seed",
    "bare_document",
    "ids_lines",
    "mapped_ids",
    "narrowed_picklists",
    "scratch_folder",
    "seeds",
    "unknowable",
    "users_document",
    "with_optional",
    "without_ids",
]
