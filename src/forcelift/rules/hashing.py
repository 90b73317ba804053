"""Row hashes and chunk checksums: 128 bits, stable across machines and versions, free of order.

The text that is hashed and the function (XXH3, 128 bits, seed 0) are version `v1`; a change of either needs a new
version, because checksums are stored and compared long after.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl
import polars_hash
import pyarrow as pa
from msgspec import Struct

from forcelift.rules.arrow import series_of

VERSION = "v1"
_MODULUS = 1 << 128
HASH_BYTES = 16
_SEPARATOR = "\x1f"
_ROWS_AT_ONCE = 10_000
"""What is hashed is a row with all names, longer than the row: of a whole batch it would be the largest copy."""


def text_hash(column: str) -> pl.Expr:
    """XXH3 of a text column, 128 bits, as UInt128."""
    hashed: pl.Expr = polars_hash.col(column).nchash.xxh3_128()
    return hashed


def row_hash(frame: pl.DataFrame, *, key_field: str, fields: Sequence[str], free: Collection[str] = ()) -> pl.Series:
    """Hash of each row over the key and these fields, which are columns of canonical text in `frame`.

    Fields count in the order of their names, so that the plan's order does not matter; the names are part of the hash.
    Null is the empty text, which no canonical value is.

    Args:
        free: Fields whose values are known to hold no U+001F; it only saves the look at them.
    Returns: Binary of 16 bytes, little-endian.
    """
    names = [key_field, *sorted(name for name in fields if name != key_field)]
    head = _SEPARATOR.join([VERSION, str(len(names)), *(name.replace(_SEPARATOR, "") for name in names)])
    watched = [name for name in names if name not in free]
    hashed = [_hashed(piece, names, head, watched) for piece in frame.iter_slices(_ROWS_AT_ONCE)]
    return to_binary(pl.concat(hashed) if hashed else pl.Series("text", [], dtype=pl.UInt128()))


def _hashed(frame: pl.DataFrame, names: Sequence[str], head: str, watched: Sequence[str]) -> pl.Series:
    texts = frame.select(
        pl.concat_str([pl.lit(head), *(pl.col(name).fill_null("") for name in names)], separator=_SEPARATOR).alias(
            "text"
        )
    )
    text = texts["text"]
    if any(frame[name].str.contains(_SEPARATOR, literal=True).any() for name in watched):
        text = _unambiguous(text, frame, names, head)
    return text.to_frame("text").select(text_hash("text"))["text"]


def _unambiguous(texts: pl.Series, frame: pl.DataFrame, names: Sequence[str], head: str) -> pl.Series:
    """Replace the text of rows in which a value holds the separator by one with lengths before the values.

    Rows with exactly one separator between two values can be read in one way only, so they need nothing; the letter `L`
    keeps the two forms apart.
    """
    expected = head.count(_SEPARATOR) + len(names)
    rows = (texts.str.count_matches(_SEPARATOR, literal=True) != expected).arg_true()
    if not rows.len():
        return texts
    values = [pl.col(name).fill_null("") for name in names]
    parts = [part for value in values for part in (value.str.len_bytes().cast(pl.String), value)]
    safe = frame[rows].select(pl.concat_str([pl.lit(f"L{head}"), *parts], separator=_SEPARATOR).alias("text"))
    return texts.clone().scatter(rows, safe["text"])


def to_binary(hashes: pl.Series) -> pl.Series:
    """UInt128 without nulls as 16 bytes, little-endian."""
    name = hashes.name
    halves = hashes.to_frame("hash").select(
        pl.concat_arr(
            (pl.col("hash") % (1 << 64)).cast(pl.UInt64), (pl.col("hash") // (1 << 64)).cast(pl.UInt64)
        ).alias("halves")
    )
    array = halves["halves"].rechunk().to_arrow()
    words = array.values.slice(array.offset * 2, len(array) * 2)
    packed = pa.Array.from_buffers(pa.binary(16), len(array), [None, words.buffers()[1]], offset=words.offset // 2)
    return series_of(packed).alias(name)


def from_binary(hashes: pl.Series) -> pl.Series:
    """The reverse of `to_binary`."""
    halves = hashes.to_frame("hash").select(
        pl.col("hash").bin.slice(0, 8).bin.reinterpret(dtype=pl.UInt64, endianness="little").alias("low"),
        pl.col("hash").bin.slice(8, 8).bin.reinterpret(dtype=pl.UInt64, endianness="little").alias("high"),
    )
    return halves.select(
        (pl.col("high").cast(pl.UInt128) * (1 << 64) + pl.col("low").cast(pl.UInt128)).alias(hashes.name)
    ).to_series()


def add_hashes(load: pl.Series, link: pl.Series) -> pl.Series:
    """The row hash: load part plus link part, mod 2^128. A null link part counts as none."""
    words = pl.DataFrame({"load": load, "link": link}).select(pl.col("load"), pl.col("link").fill_null(b"\x00" * 16))
    total = from_binary(words["load"]) + from_binary(words["link"])  # UInt128 wraps, which is the modulus
    return to_binary(total).alias(load.name)


class ChunkSum(Struct, frozen=True, kw_only=True):
    """Count and order-free sum of row hashes, mod 2^128. Sums of parts add up to the sum of the whole."""

    count: int = 0
    total: int = 0

    def __add__(self, other: ChunkSum) -> ChunkSum:
        return ChunkSum(count=self.count + other.count, total=(self.total + other.total) % _MODULUS)

    def __str__(self) -> str:
        """`v1:<count>:<32 hex digits>`, at most 64 characters."""
        return f"{VERSION}:{self.count}:{self.total:032x}"

    @classmethod
    def parse(cls, text: str) -> ChunkSum:
        """Read what `str` wrote. Raises ValueError on another version or form."""
        version, count, total = text.split(":")
        if version != VERSION or len(total) != 32:
            raise ValueError(f"`{version}` is not a checksum of version {VERSION}")
        return cls(count=int(count), total=int(total, 16))


def checksum(hashes: pl.Series) -> ChunkSum:
    """Sum of 16-byte row hashes; nulls count as nothing."""
    present = hashes.drop_nulls()
    array = present.rechunk().to_arrow()
    _, offsets, data = array.buffers()
    places = series_of(pa.Array.from_buffers(pa.int64(), len(array) + 1, [None, offsets], offset=array.offset))
    if (places.diff().drop_nulls() != HASH_BYTES).any():
        raise ValueError(f"a row hash does not have {HASH_BYTES} bytes")
    words = pa.Array.from_buffers(pa.uint32(), 4 * len(array), [None, data], offset=places[0] // 4)
    # Four sums of 32-bit numbers cannot overflow 64 bits below 2^32 rows.
    limbs = [int(series_of(words).gather_every(4, place).cast(pl.UInt64).sum()) for place in range(4)]
    total = sum(value << (32 * place) for place, value in enumerate(limbs))
    return ChunkSum(count=present.len(), total=total % _MODULUS)
