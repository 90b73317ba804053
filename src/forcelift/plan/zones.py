"""Names of time zones and encodings."""

from __future__ import annotations

import codecs
import encodings.aliases
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import available_timezones

if TYPE_CHECKING:
    from forcelift.plan.models import Plan

# Names that IANA registers and Python lacks (iana.org/assignments/character-sets).
_OTHER_NAMES = {"windows-874": "cp874"}
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


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """All IANA zones that this machine knows, the package `tzdata` included."""
    return frozenset(available_timezones())
