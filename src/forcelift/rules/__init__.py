"""The plan's rules: cleaning as column expressions, canonical form, keys, duplicates, row hashes and checksums.

RULES of the plan file: every rule has a default; a value is changed only by a rule that the plan or its default names,
and each change is counted. Nothing here does I/O but `DuplicateScan`, which spills to a folder.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forcelift.rules.arrow import series_of
    from forcelift.rules.canonical import canonical_from_org
    from forcelift.rules.chunk import ChunkCleaner
    from forcelift.rules.compile import SourceDefaults, compile_table, owner_names
    from forcelift.rules.duplicates import DuplicateDecisions, DuplicateNorms, DuplicateScan
    from forcelift.rules.frames import compact, frame_of
    from forcelift.rules.hashing import ChunkSum, add_hashes, checksum, row_hash
    from forcelift.rules.keys import normalised_key
    from forcelift.rules.outcomes import Cleaned, LinkResult
    from forcelift.rules.parents import LookupInfo, ParentKeys
    from forcelift.rules.plain import plain_text
    from forcelift.rules.remedies import rule_remedy
    from forcelift.rules.sample import SampleKeys, SamplePercent, followed_lookups
    from forcelift.rules.table import CompiledTable
    from forcelift.rules.targets import LookupTarget, ParentField, lookup_targets
    from forcelift.rules.texts import decoded_text, unescape

_PLACES = {
    "series_of": "arrow",
    "canonical_from_org": "canonical",
    "ChunkCleaner": "chunk",
    "SourceDefaults": "compile",
    "compile_table": "compile",
    "owner_names": "compile",
    "DuplicateDecisions": "duplicates",
    "DuplicateNorms": "duplicates",
    "DuplicateScan": "duplicates",
    "compact": "frames",
    "frame_of": "frames",
    "ChunkSum": "hashing",
    "add_hashes": "hashing",
    "checksum": "hashing",
    "row_hash": "hashing",
    "normalised_key": "keys",
    "Cleaned": "outcomes",
    "LinkResult": "outcomes",
    "LookupInfo": "parents",
    "ParentKeys": "parents",
    "plain_text": "plain",
    "rule_remedy": "remedies",
    "SampleKeys": "sample",
    "SamplePercent": "sample",
    "followed_lookups": "sample",
    "CompiledTable": "table",
    "LookupTarget": "targets",
    "ParentField": "targets",
    "lookup_targets": "targets",
    "decoded_text": "texts",
    "unescape": "texts",
}

__all__ = [
    "ChunkCleaner",
    "ChunkSum",
    "Cleaned",
    "CompiledTable",
    "DuplicateDecisions",
    "DuplicateNorms",
    "DuplicateScan",
    "LinkResult",
    "LookupInfo",
    "LookupTarget",
    "ParentField",
    "ParentKeys",
    "SampleKeys",
    "SamplePercent",
    "SourceDefaults",
    "add_hashes",
    "canonical_from_org",
    "checksum",
    "compact",
    "compile_table",
    "decoded_text",
    "followed_lookups",
    "frame_of",
    "lookup_targets",
    "normalised_key",
    "owner_names",
    "plain_text",
    "row_hash",
    "rule_remedy",
    "series_of",
    "unescape",
]


def __getattr__(name: str) -> Any:
    """Imported one by one when asked for: who wants a remedy's words needs no expressions, and no polars."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
