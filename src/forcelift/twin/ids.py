"""Record Ids: 15 characters in base 62, and the 18-character form with its checksum.

Source: salesforce-api reference, section 7: each of three groups of five characters gives one checksum character, whose
bit k is set when the group's character k is an upper-case letter.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Final

import polars as pl

BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CHECKSUM: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_LOW_RANGE: Final = 62**5


def id18(record_id: str) -> str:
    """The 18-character form of a 15- or 18-character Id."""
    return record_id[:15] + "".join(_checksum(record_id[start : start + 5]) for start in (0, 5, 10))


def is_id(text: str) -> bool:
    """True if the text has the form of an Id: 15 characters, or 18 with the right checksum."""
    return text.isalnum() and text.isascii() and (len(text) == 15 or (len(text) == 18 and id18(text) == text))


def base62(number: int, width: int) -> str:
    """The number in base 62, filled up with zeros."""
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    return "".join(reversed(digits))


def org_pod(seed: int) -> str:
    """The two characters after the key prefix that all Ids of one org share."""
    return base62(random.Random(f"pod:{seed}").randrange(62 * 62), 2)  # noqa: S311 - names things, guards nothing


def make_id(prefix: str, pod: str, number: int) -> str:
    """One Id: key prefix, pod, a reserved 0, and nine digits of the running number."""
    return id18(f"{prefix}{pod}0{base62(number, 9)}")


def make_ids(prefix: str, pod: str, start: int, count: int) -> pl.Series:
    """Ids of consecutive running numbers as a text column, without a loop over rows."""
    parts = []
    number, end = start, start + count
    while number < end:
        # The ten characters before the last five are the same for 62**5 numbers, so there are one or two runs.
        run_end = min(end, (number // _LOW_RANGE + 1) * _LOW_RANGE)
        parts.append(
            _run_of_ids(f"{prefix}{pod}0{base62(number // _LOW_RANGE, 4)}", number % _LOW_RANGE, run_end - number)
        )
        number = run_end
    return pl.concat(parts) if parts else pl.Series("id", [], dtype=pl.String)


def _run_of_ids(head: str, start: int, count: int) -> pl.Series:
    pairs, triples = _texts(2), _texts(3)
    numbers = pl.int_range(start, start + count, dtype=pl.Int64, eager=True)
    pair = pairs[numbers // 62**3]
    triple = triples[numbers % 62**3]
    last = pl.Series(list(CHECKSUM))[(pair["bits"] + triple["bits"] * 4)]
    frame = pl.DataFrame({"pair": pair["text"], "triple": triple["text"], "last": last})
    ends = _checksum(head[:5]) + _checksum(head[5:])
    return frame.select(pl.concat_str(pl.lit(head), "pair", "triple", pl.lit(ends), "last").alias("id")).to_series()


@cache
def _texts(width: int) -> pl.DataFrame:
    """All texts of that many base-62 digits in order, with the checksum bits of their upper-case letters."""
    one = pl.DataFrame({"text": list(BASE62), "bits": [int(digit.isupper()) for digit in BASE62]})
    frame = one
    for place in range(1, width):
        frame = frame.join(one, how="cross", suffix="_next").select(
            pl.col("text") + pl.col("text_next"), bits=pl.col("bits") + pl.col("bits_next") * 2**place
        )
    return frame


def _checksum(five: str) -> str:
    return CHECKSUM[sum(1 << place for place, letter in enumerate(five) if "A" <= letter <= "Z")]
