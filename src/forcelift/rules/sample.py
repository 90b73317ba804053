"""Which rows a sample takes: those whose key's hash is small, and all that these refer to.

The hash is XXH3 (128 bits) of the key as the target field compares it, made by the plan's own rules: one hash for every
source, which knows decoding, value maps, outer blanks and letter case as the rules have them. A key is in the sample of
P percent if the upper 64 bits are below P/100 of their range, so a smaller sample is part of every larger one.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import polars as pl
from msgspec import Struct

from forcelift.errors import UsageError
from forcelift.rules import keys as key_rules
from forcelift.rules.duplicates import key_hash
from forcelift.rules.findings import Findings
from forcelift.rules.table import CompiledTable

PERCENT_DECIMALS_MAX = 6
_RANGE = 1 << 64


class SamplePercent(Struct, frozen=True):
    """How many percent of the keys: above 0, at most 100, with up to six decimals."""

    value: Decimal

    @classmethod
    def of(cls, given: Decimal | int | float | str) -> SamplePercent:
        """Check what a person asked for.

        Raises:
            UsageError: It is no number, is 0 or below, is over 100, or has more than six decimals.
        """
        try:
            value = Decimal(str(given).strip())
        except InvalidOperation:
            value = Decimal("NaN")
        if not value.is_finite() or not 0 < value <= 100:
            raise _refused(given, "is not a number above 0 and up to 100")
        rounded = round(value, PERCENT_DECIMALS_MAX)
        if rounded != value:
            raise _refused(given, f"has more than {PERCENT_DECIMALS_MAX} decimals")
        return cls(rounded.normalize())

    @property
    def is_whole(self) -> bool:
        """True if nothing is left out."""
        return self.value == 100

    @property
    def threshold(self) -> int:
        """The upper half of a sampled key's hash is below this."""
        millionths = int(self.value.scaleb(PERCENT_DECIMALS_MAX))
        return millionths * _RANGE // (100 * 1_000_000)

    def __str__(self) -> str:
        return f"{self.value:f}"


def _refused(given: object, why: str) -> UsageError:
    return UsageError(
        f"`--sample-percent {given}` {why}",
        state="nothing was read or written",
        hint="write the percent of the keys, such as `--sample-percent 1` or `--sample-percent 0.01`",
    )


class SampleKeys:
    """What must be known of a row to draw it: the hash of its key, and those of the parents it names.

    Args:
        rules: The table's rules.
        followed: Of its lookup columns those whose parents are drawn too, with the parent's table.
    """

    def __init__(self, rules: CompiledTable, followed: Mapping[str, str]) -> None:
        self._rules = rules
        self.followed = dict(followed)

    @property
    def columns(self) -> list[str]:
        """The source columns that are read; of a row that is not drawn no others are."""
        return list(dict.fromkeys([*self._rules.key_columns, *self.followed]))

    def hashes(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`high`, `low` of each row's key, null for a row without one."""
        return key_hash(self._rules.keys(frame)["norm"])

    def parents(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`high0`, `low0`, `high1`, ... of the parents' keys, one pair a followed column; null where none is named."""
        pairs = []
        for number, name in enumerate(self.followed):
            lookup = self._rules.lookups[name]
            # What a rule makes of the value counts, a default too: it is what the lookup will ask for.
            cleaned = self._rules.columns[name].clean(frame[name], Findings(), None)
            norms = key_rules.normalised(cleaned, case_sensitive=lookup.case_sensitive)
            pairs.append(key_hash(norms).rename({"high": f"high{number}", "low": f"low{number}"}))
        return pl.concat(pairs, how="horizontal") if pairs else pl.DataFrame()


def followed_lookups(rules: CompiledTable, tables: Mapping[str, CompiledTable]) -> dict[str, str]:
    """Lookup columns by the table that holds their parents, of parents that are loaded in the same batch."""
    found: dict[str, str] = {}
    for column, lookup in rules.lookups.items():
        parent = tables.get(lookup.parent_table or "")
        if lookup.parent_table is not None and parent is not None and parent.key_field == lookup.key_field:
            found[column] = lookup.parent_table
    return found
