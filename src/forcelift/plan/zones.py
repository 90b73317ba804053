"""Names of time zones and encodings."""

from __future__ import annotations

import codecs
import encodings.aliases
import os
import re
import zoneinfo
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forcelift.plan.models import Plan

# Names that IANA registers and Python lacks (iana.org/assignments/character-sets).
_OTHER_NAMES = {"windows-874": "cp874"}
# Beside the zones lie the same once more, counted in other ways, and a link to one of them.
_NO_ZONES = {"posix", "right", "posixrules"}
# Python's codecs that are text encodings by name only: none of them is how a database writes text.
_NOT_FOR_DATA = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7", "mbcs", "oem"}


def codec_name(encoding: str) -> str:
    """Python's name of an encoding, also of those known by another name elsewhere (`windows-874`).

    Raises:
        LookupError: There is no such encoding of text.
    """
    wanted = _OTHER_NAMES.get(encoding.strip().lower().replace("_", "-"), encoding.strip())
    try:
        name = codecs.lookup(wanted).name
        # Codecs that do not give text, such as base64, are told by trying; no bytes at all would not tell.
        b"a".decode(wanted, "replace")
    except (LookupError, ValueError) as error:
        raise LookupError(f"no encoding of text has the name {encoding!r}") from error
    if name.replace("-", "_") in _NOT_FOR_DATA:
        raise LookupError(f"{encoding!r} is no encoding of a database")
    return name


def byte_tables(plan: Plan) -> dict[str, str]:
    """The tables whose text must come as bytes, since a rule is to decode them; each with its own encoding.

    That is so if the table or a column of it has an encoding that is not the source's, or if a column says itself what
    is to become of bytes that its encoding lacks.
    """
    found: dict[str, str] = {}
    for table in plan.tables:
        encoding = table.encoding or plan.source.encoding
        named = [encoding, *(rule.encoding for rule in table.fields.values() if rule.encoding is not None)]
        decides = any("encoding_error" in rule.model_fields_set for rule in table.fields.values())
        if decides or any(codec_name(name) not in ("utf-8", "utf-8-sig") for name in named):
            found[table.table] = codec_name(encoding)
    return found


def encoding_names() -> list[str]:
    """Names of encodings, to find the nearest one."""
    return sorted(
        {*encodings.aliases.aliases, *encodings.aliases.aliases.values(), *_OTHER_NAMES, "utf-8", "iso-8859-11"}
    )


def is_zone(name: str) -> bool:
    """Whether this machine knows an IANA zone of that name, spelt exactly so."""
    parts = name.split("/")
    is_plain = parts[0] not in _NO_ZONES and all(re.fullmatch(r"[A-Za-z0-9_+-]+", part) for part in parts)
    # To list all zones means to open six hundred files; most often the one asked for is there.
    return (is_plain and any(_holds_zone(Path(root), parts) for root in zoneinfo.TZPATH)) or name in zone_names()


def _holds_zone(folder: Path, parts: list[str]) -> bool:
    """Whether a folder of zones has this one. Names are compared, as some file systems find a file by any case."""
    place = folder
    for part in parts:
        if not place.is_dir() or part not in os.listdir(place):
            return False
        place = place / part
    try:
        with place.open("rb") as file:
            return file.read(4) == b"TZif"
    except OSError:
        return False  # a folder, or nothing that this user may read: asked for among all zones


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """All IANA zones that this machine knows, the package `tzdata` included."""
    return frozenset(zoneinfo.available_timezones())
