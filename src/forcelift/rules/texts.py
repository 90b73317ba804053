"""Text on whole columns: decoding, blanks, control characters, unicode form, length in UTF-16 units.

Every function takes a column and gives a column; what needs mending is found by one cheap `contains` and only those
rows are touched.
"""

from __future__ import annotations

import unicodedata
from functools import cache, cached_property

import polars as pl
import pyarrow as pa

from forcelift.protocols.source import BROKEN_TEXT
from forcelift.rules.arrow import series_of

BLANKS = "\t\n\x0b\x0c\r "
OUTER_BLANKS = r"^[\t-\r ]|[\t-\r ]$"
CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}]"
ZERO_WIDTH = r"[\x{200b}-\x{200d}\x{2060}\x{feff}]"
# One look at each value: blank, blanks at an end, the null literal, controls, or a carriage return.
GATE = r"^[\t-\r ]|[\t-\r ]$|^$|^#N/A$|[\x00-\x08\x0b-\x1f\x7f-\x{9f}]"
NULL_LITERAL = "#N/A"
_SHORT_BYTES = 64
FIRST_PRINTED = 0x20
_LAST_OF_ASCII = 0x7F  # a control character, too
_FIRST_OF_TWO = 0x80  # the least byte of a character that is not ASCII
_FIRST_OF_THAI = 0xE0  # that, and then B8 or B9
_FIRST_OF_FOUR = 0xF0  # the least byte that begins a character beyond the BMP in UTF-8

_PLANES_WITH_FORMS = 0x30000  # no character beyond has a decomposition or a combining class (a test holds it)
_ASTRAL = r"[\x{10000}-\x{10ffff}]"
# Two characters between which no cluster ends for certain (UAX 29, GB3 and GB6 to GB13); all others are a boundary.
_MAY_JOIN = (
    r"(?s)^(?:.[\p{gcb=Extend}\p{gcb=ZWJ}\p{gcb=SpacingMark}]|\p{gcb=Prepend}.|\p{gcb=ZWJ}\p{Extended_Pictographic}"
    r"|\p{gcb=L}[\p{gcb=L}\p{gcb=V}\p{gcb=LV}\p{gcb=LVT}]|[\p{gcb=LV}\p{gcb=V}][\p{gcb=V}\p{gcb=T}]"
    r"|[\p{gcb=LVT}\p{gcb=T}]\p{gcb=T}|\p{gcb=RI}\p{gcb=RI}|\r\n)$"
)
_TWO_FLAG_LETTERS = r"^\p{gcb=RI}\p{gcb=RI}$"
_STEPS_BACK_MAX = 8
_CLUSTER = (
    r"(?s)\r\n|\p{gcb=Control}|\p{gcb=Prepend}*(?:\p{gcb=RI}\p{gcb=RI}"
    r"|\p{gcb=L}*(?:\p{gcb=V}+|\p{gcb=LV}\p{gcb=V}*|\p{gcb=LVT})\p{gcb=T}*|\p{gcb=L}+|\p{gcb=T}+"
    r"|\p{Extended_Pictographic}(?:\p{gcb=Extend}*\p{gcb=ZWJ}\p{Extended_Pictographic})*|[^\p{gcb=Control}])"
    r"[\p{gcb=Extend}\p{gcb=ZWJ}\p{gcb=SpacingMark}]*|."
)


def suspects(values: pl.Series) -> pl.Series:
    """Rows (u32) that `GATE` matches."""
    if is_plain(values):
        return ((values == "") | (values == NULL_LITERAL)).fill_null(False).arg_true()
    if (values.str.len_bytes().sum() or 0) <= _SHORT_BYTES * values.len():
        return values.str.contains(GATE).fill_null(False).arg_true()
    binary = values.cast(pl.Binary)
    # Over long texts a regular expression is ten times slower than a look at the smallest byte of each. Of the other
    # controls, U+007F is a byte, and U+0080 to U+009F begin with the byte C2 as some letters do.
    maybe = (
        (byte_lists(values).list.min() < FIRST_PRINTED)
        | binary.bin.contains(b"\x7f")
        | binary.bin.contains(b"\xc2")
        | values.str.starts_with(" ")
        | values.str.ends_with(" ")
        | (values == "")
        | (values == NULL_LITERAL)
    )
    rows = maybe.fill_null(False).arg_true()
    return rows.filter(values.gather(rows).str.contains(GATE))


def is_plain(values: pl.Series) -> bool:
    """Whether all texts are of ASCII's printed characters without the blank, as most keys and codes are.

    A look at all bytes at once costs a tenth of the cheapest look at each text.
    """
    _, data = _content(values)
    if not data.len():
        return True
    least, most = data.min(), data.max()
    assert isinstance(least, int)
    assert isinstance(most, int)
    return least > FIRST_PRINTED and most < _LAST_OF_ASCII


def byte_lists(values: pl.Series) -> pl.Series:
    """The UTF-8 bytes of each text as a list, without a copy of each; null is an empty list."""
    offsets, data = _content(values)
    if not data.len():
        return pl.repeat([], values.len(), dtype=pl.List(pl.UInt8), eager=True)
    return series_of(pa.LargeListArray.from_arrays(offsets, data.to_arrow()))


def _content(values: pl.Series) -> tuple[pa.Array, pl.Series]:
    """Where each text begins and ends among the bytes of all, and these bytes."""
    # Texts and bytes lie alike in their buffers, and pyarrow's own cast would import all of its functions.
    array = values.rechunk().to_arrow()
    assert array.type in (pa.large_string(), pa.large_binary()), array.type
    _, offsets, data = array.buffers()
    places = pa.Array.from_buffers(pa.int64(), len(array) + 1, [None, offsets], offset=array.offset)
    size = data.size if data is not None else 0
    content = pa.Array.from_buffers(pa.uint8(), size, [None, data or pa.py_buffer(b"")])
    return places, series_of(content)


class TextLook:
    """What several questions about a column of texts share, found out once: bytes, lengths, the least byte."""

    def __init__(self, values: pl.Series) -> None:
        self.values = values

    @cached_property
    def _lists(self) -> pl.Series:
        return byte_lists(self.values)

    @cached_property
    def _bytes(self) -> pl.Series:
        return self._lists.explode(empty_as_null=False, keep_nulls=False)

    @cached_property
    def byte_range(self) -> tuple[int, int]:
        """The least and the greatest byte of all texts in UTF-8; of none that of a blank."""
        held = self._bytes
        if not held.len():
            return FIRST_PRINTED, FIRST_PRINTED
        least, most = held.to_frame("byte").select(pl.min("byte").alias("least"), pl.max("byte").alias("most")).row(0)
        return int(least), int(most)

    @property
    def is_ascii(self) -> bool:
        """True if no text holds anything else."""
        return self.byte_range[1] < _FIRST_OF_TWO

    @cached_property
    def is_ascii_or_thai(self) -> bool:
        """True if no text holds a character beyond ASCII and the Thai block: U+0E00 to U+0E7F, E0 B8 and E0 B9."""
        if self.is_ascii:
            return True
        held = self._bytes
        if self.byte_range[1] > _FIRST_OF_THAI or held.is_between(0xC0, _FIRST_OF_THAI - 1).any():
            return False
        leads, follows = held.slice(0, held.len() - 1) == _FIRST_OF_THAI, held.slice(1)
        return not (leads & ~follows.is_between(0xB8, 0xB9)).any()

    @cached_property
    def least_bytes(self) -> pl.Series:
        """The least byte of each text; null for none."""
        return self._lists.list.min()

    @cached_property
    def chars(self) -> pl.Series:
        """The length of each text in characters."""
        return self.values.str.len_bytes() if self.is_ascii else self.values.str.len_chars()

    def holds(self, byte: int) -> pl.Series:
        """True for texts with that byte, which finds letters by how they begin; null or false for none."""
        # One look over all bytes costs a fifth of a look at each text.
        if not (self._bytes == byte).any():
            return pl.repeat(False, self.values.len(), dtype=pl.Boolean, eager=True)
        return self.values.cast(pl.Binary).bin.contains(bytes([byte]))

    def over_length(self, units: int) -> pl.Series:
        """As `rows_over_length`."""
        if self.byte_range[1] >= _FIRST_OF_FOUR:
            return rows_over_length(self.values, units)
        return (self.chars > units).fill_null(False).arg_true()


def may_change_composed(values: pl.Series) -> pl.Series:
    """True for texts that may change by the composed form."""
    return values.str.contains(_nfc_gate()).fill_null(False)


def decode(values: pl.Series, codec: str) -> tuple[pl.Series, pl.Series]:
    """Turn bytes into text.

    Returns: the text, undefined bytes as U+FFFD, and the rows (u32) that hold such bytes.
    """
    if codec == "utf-8":
        try:
            return values.cast(pl.String), _no_rows()
        except pl.exceptions.ComputeError:
            return _decode_distinct(values, codec)
    text, broken = _decode_single_byte(values, codec) if _is_single_byte(codec) else _decode_distinct(values, codec)
    return _without_c1(text, broken) if codec == "tis-620" else (text, broken)


def unescape(values: pl.Series, codec: str = "utf-8") -> tuple[pl.Series, pl.Series]:
    """The texts, those that came as `BROKEN_TEXT` decoded, with U+FFFD for what the encoding lacks.

    Returns: also the rows (u32) whose bytes the encoding lacks; the very same texts if none came so.
    """
    rows = values.str.starts_with(BROKEN_TEXT).fill_null(False).arg_true()
    if not rows.len():
        return values, rows
    raw = values.gather(rows).str.strip_prefix(BROKEN_TEXT).str.decode("hex", strict=False)
    held = raw.is_not_null()  # a real text that happens to begin so has no bytes in hexadecimal behind it
    rows, raw = rows.filter(held), raw.filter(held)
    if not rows.len():
        return values, rows
    text, broken = decode(raw, codec)
    return values.clone().scatter(rows, text), rows.gather(broken)


def decoded_text(values: pl.Series, codec: str) -> pl.Series:
    """Bytes as text, whatever the encoding lacks as U+FFFD."""
    return decode(values, codec)[0]


def _without_c1(text: pl.Series, broken: pl.Series) -> tuple[pl.Series, pl.Series]:
    """TIS 620 defines nothing from 0x80 to 0x9F; Python reads control characters there, which a rule would remove."""
    rows = text.str.contains(_C1).fill_null(False).arg_true()
    if not rows.len():
        return text, broken
    mended = text.scatter(rows, text.gather(rows).str.replace_all(_C1, "\ufffd"))
    return mended, pl.concat([broken, rows.cast(broken.dtype)]).unique().sort()


_C1 = r"[\x{80}-\x{9f}]"


def _no_rows() -> pl.Series:
    return pl.Series(dtype=pl.UInt32)


@cache
def _is_single_byte(codec: str) -> bool:
    """True if each byte alone stands for one character, and the ASCII ones for themselves."""
    text = bytes(range(256)).decode(codec, errors="replace")
    ascii_kept = bytes(range(128)).decode(codec, errors="replace") == "".join(map(chr, range(128)))
    return len(text) == 256 and ascii_kept and not codec.startswith(("utf", "euc", "gb", "big5", "shift"))


def _decode_single_byte(values: pl.Series, codec: str) -> tuple[pl.Series, pl.Series]:
    """Join the whole column with NUL bytes, decode once, split again; values that hold NUL go one by one."""
    if values.bin.contains(b"\x00").any():
        return _decode_distinct(values, codec)
    rows = values.is_not_null().arg_true()
    if not rows.len():
        return values.cast(pl.String), _no_rows()
    import pyarrow.compute as pc  # wraps hundreds of functions when it is imported, and few plans need one

    array = values.drop_nulls().rechunk().to_arrow().cast(pa.large_binary())
    whole = pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)
    joined = pc.binary_join(whole, pa.scalar(b"\x00", pa.large_binary()))[0].as_py().decode(codec, errors="replace")
    parts = pl.Series([joined]).str.split("\x00").explode()
    text = pl.repeat(None, values.len(), dtype=pl.String, eager=True).alias(values.name).scatter(rows, parts)
    return text, text.str.contains("\ufffd", literal=True).fill_null(False).arg_true()


def _decode_distinct(values: pl.Series, codec: str) -> tuple[pl.Series, pl.Series]:
    """Decode each distinct value once; the way for encodings of several bytes a character, and for broken UTF-8."""
    distinct = values.drop_nulls().unique()
    texts: list[str] = []
    broken: list[bool] = []
    for value in distinct:
        try:
            texts.append(value.decode(codec))
            broken.append(False)
        except UnicodeDecodeError:
            texts.append(value.decode(codec, errors="replace"))
            broken.append(True)
    table = pl.DataFrame(
        {"value": distinct, "text": pl.Series(texts, dtype=pl.String), "broken": pl.Series(broken, dtype=pl.Boolean)}
    )
    found = values.to_frame("value").join(table, on="value", how="left", maintain_order="left")
    return found["text"].alias(values.name), found["broken"].fill_null(False).arg_true()


def in_one_order(values: pl.Series) -> pl.Series:
    """Texts of several values joined by `;`, each once and sorted.

    The org gives the values of a multi-select picklist in an order of its own, whatever order they were sent in
    (Salesforce Help, "Multi-Select Picklist Value Ordering Behavior"), so that an order says nothing.
    """
    rows = values.str.contains(";", literal=True).fill_null(False).arg_true()
    if not rows.len():
        return values
    part = values.gather(rows).str.split(";").list.unique().list.sort().list.join(";")
    return values.clone().scatter(rows, part)


def fold_line_ends(texts: pl.Series) -> pl.Series:
    """CRLF and CR become LF."""
    return texts.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)


def compose(texts: pl.Series) -> pl.Series:
    """Unicode form NFC."""
    rows = may_change_composed(texts).arg_true()
    if not rows.len():
        return texts
    return texts.clone().scatter(rows, texts.gather(rows).str.normalize("NFC"))


@cache
def _nfc_gate() -> str:
    """A pattern that every text not in NFC matches.

    Such a text holds a character that NFC changes or may join, or two marks in a row that canonical order turns round:
    the second of a lower combining class than the first. Marks in order are common (a Thai vowel with a tone mark) and
    must not cost a look at the whole text.
    """
    changing: set[int] = set()
    marks: dict[int, set[int]] = {}
    for code in range(0x80, _PLANES_WITH_FORMS):
        if 0xAC00 <= code <= 0xD7A3 or 0xD800 <= code <= 0xDFFF:
            continue
        char = chr(code)
        if unicodedata.combining(char):
            marks.setdefault(unicodedata.combining(char), set()).add(code)
        parts = unicodedata.decomposition(char)
        if not parts or parts.startswith("<"):
            continue
        if unicodedata.normalize("NFC", char) != char:
            changing.add(code)
        changing.update(int(part, 16) for part in parts.split()[1:])
    changing.update(range(0x1161, 0x1176))  # Hangul vowels and finals join by arithmetic, not by table
    changing.update(range(0x11A8, 0x11C3))
    lower: set[int] = set()
    turned: list[str] = []
    for rank in sorted(marks):
        if lower:
            turned.append(_char_class(marks[rank]) + _char_class(lower))
        lower |= marks[rank]
    return "|".join([_char_class(changing), *turned])


def _char_class(codes: set[int]) -> str:
    ranges: list[tuple[int, int]] = []
    for code in sorted(codes):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return "[" + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in ranges) + "]"


def rows_over_length(texts: pl.Series, units: int) -> pl.Series:
    """Rows (u32) longer than that many UTF-16 units, as Salesforce counts."""
    # A UTF-16 unit takes at least one byte of UTF-8, so a text of no more bytes is certainly short enough.
    suspects = texts.str.len_bytes() > units
    if not suspects.any():
        return pl.Series(dtype=pl.UInt32)
    chars = texts.str.len_chars()
    over = (chars > units).fill_null(False)
    # Four bytes each and two units: there are at most a third of (bytes - characters) such characters.
    wide = suspects & ~over & (chars + (texts.str.len_bytes() - chars) // 3 > units)
    rows = wide.fill_null(False).arg_true()
    if rows.len():
        rows = rows.filter((byte_lists(texts.gather(rows)).list.max() >= _FIRST_OF_FOUR).fill_null(False))
    if rows.len():
        part = texts.gather(rows)
        over = over.scatter(rows, part.str.len_chars() + part.str.count_matches(_ASTRAL) > units)
    return over.arg_true()


def truncate(texts: pl.Series, units: int) -> pl.Series:
    """Cut texts that are too long to at most that many UTF-16 units, between grapheme clusters.

    Blanks at the cut are trimmed. A text whose first cluster alone is too long becomes the empty text.
    """
    head = texts.str.slice(0, units)
    wide = head.str.contains(_ASTRAL).arg_true()
    if wide.len():
        # NUL, which no text holds at this point, makes each character beyond the BMP count twice.
        doubled = texts.gather(wide).str.replace_all(f"({_ASTRAL})", "${1}\x00").str.slice(0, units)
        whole = doubled.str.replace(f"{_ASTRAL}$", "").str.replace_all("\x00", "", literal=True)
        head = head.scatter(wide, whole)
    frame = pl.DataFrame({"text": texts, "cut": head.str.len_chars()})
    cut = _cut_before_joins(frame)
    return frame.select(pl.col("text").str.slice(0, cut)).to_series().str.strip_chars_end(BLANKS)


def _cut_before_joins(frame: pl.DataFrame) -> pl.Series:
    """Move each cut back to the next boundary between clusters; segmenting a text as a whole is the last resort."""
    cut = frame["cut"]
    rows = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    hard = rows.head(0)
    for _ in range(_STEPS_BACK_MAX):
        part = frame[rows].with_columns(cut.gather(rows).alias("cut"))
        pair = part.filter(pl.col("cut") > 0).select(pl.col("text").str.slice(pl.col("cut") - 1, 2)).to_series()
        rows = rows.filter(part["cut"] > 0)
        joined = pair.str.contains(_MAY_JOIN)
        flags = pair.str.contains(_TWO_FLAG_LETTERS)
        hard = pl.concat([hard, rows.filter(flags)])
        rows = rows.filter(joined & ~flags)
        if not rows.len():
            break
        cut = cut.scatter(rows, cut.gather(rows) - 1)
    hard = pl.concat([hard, rows])
    return cut.scatter(hard, _cut_at_cluster(frame[hard])) if hard.len() else cut


def _cut_at_cluster(frame: pl.DataFrame) -> pl.Series:
    """Where the last cluster ends that lies wholly within the first `cut` characters of its text."""
    # A cluster that starts before the cut and is longer than 64 characters beyond it is left out just the same.
    ends = (
        frame.with_row_index("row")
        .with_columns(pl.col("text").str.slice(0, pl.col("cut") + 64).str.extract_all(_CLUSTER).alias("cluster"))
        .select("row", "cut", "cluster")
        .explode("cluster", empty_as_null=True)
        .with_columns(pl.col("cluster").str.len_chars().cum_sum().over("row").alias("end"))
        .filter(pl.col("end") <= pl.col("cut"))
        .group_by("row")
        .agg(pl.col("end").max())
    )
    found = frame.with_row_index("row").join(ends, on="row", how="left", maintain_order="left")
    return found.select(pl.col("end").fill_null(0).cast(frame["cut"].dtype)).to_series()


def simple_lower(texts: pl.Series) -> pl.Series:
    """Lower case character by character: without the context rule for a final sigma, and dotted capital I as `i`."""
    special = texts.str.contains(r"[\x{3a3}\x{130}]").fill_null(False).arg_true()
    if special.len():
        part = texts.gather(special).str.replace_all("Σ", "σ", literal=True).str.replace_all("İ", "i", literal=True)
        texts = texts.clone().scatter(special, part)
    return texts.str.to_lowercase()
