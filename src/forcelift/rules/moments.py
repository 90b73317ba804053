"""Canonical dates and datetimes, and the time zones between a source's clock and UTC.

Dates are `YYYY-MM-DD`, datetimes `YYYY-MM-DDTHH:MM:SSZ` cut to the whole second. Salesforce holds the years 1700 to
4000.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import cache
from zoneinfo import ZoneInfo

import polars as pl
from msgspec import Struct

DATE_MIN = date(1700, 1, 1)
DATE_MAX = date(4000, 12, 31)
INSTANT_MIN = datetime(1700, 1, 1)  # noqa: DTZ001 (compared with naive columns that stand for UTC)
INSTANT_MAX = datetime(4000, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001 (as above)
# polars' zone tables end with the year 2099; later summers would be read as winters.
_RULES_END = datetime(2099, 12, 30)  # noqa: DTZ001 (compared with naive columns)
_LATE_MAX = datetime(4001, 1, 3)  # noqa: DTZ001 (as above; whatever is later is out of range in any zone)
BUDDHIST_YEARS = (2400, 2700)
BUDDHIST_OFFSET = 543

_ISO = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,][0-9]+)?)? ?(Z|z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
_DIRECTIVE = re.compile(r"%[-_0]?(?:[.]?[0-9]?f|[:#]?z|[A-Za-z+%])")
_WALL = "%Y-%m-%dT%H:%M:%S"
NAIVE = pl.Datetime("us")


class Moments(Struct, frozen=True, kw_only=True):
    """Datetimes as they stand in the source: wall clock time, and the offset from UTC where the value names one.

    `wall` is a naive datetime; `offset` a duration to subtract from it, null where the column's zone decides, or None
    if no value has one.
    """

    wall: pl.Series
    offset: pl.Series | None = None

    def gather(self, rows: pl.Series) -> Moments:
        """Some of the rows."""
        offset = None if self.offset is None else self.offset.gather(rows)
        return Moments(wall=self.wall.gather(rows), offset=offset)

    def to_utc(self, zone: str | None) -> tuple[pl.Series, pl.Series]:
        """Naive datetimes in UTC, null in a gap of the zone or without any zone; and rows (u32) that fall in a fold.

        A wall clock time that occurs twice counts as its first occurrence.
        """
        rows_in_fold = pl.Series(dtype=pl.UInt32)
        if zone is None:
            zoned = pl.repeat(None, self.wall.len(), dtype=NAIVE, eager=True)
        elif zone == "UTC":
            zoned = self.wall
        else:
            zoned = self.wall.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
            late = _late_rows(self.wall)
            missed = (zoned.is_null() & self.wall.is_not_null()).arg_true()
            missed = missed.filter(~missed.is_in(late.implode()))
            if late.len():
                instants, folded = _late_to_utc(self.wall.gather(late), zone)
                zoned = zoned.scatter(late, instants.dt.convert_time_zone(zone))
                rows_in_fold = late.gather(folded)
            if missed.len():
                first = self.wall.gather(missed).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
                zoned = zoned.scatter(missed, first)
                rows_in_fold = pl.concat([rows_in_fold, missed.filter(first.is_not_null())])
            zoned = zoned.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        if self.offset is not None:
            frame = pl.DataFrame({"wall": self.wall, "offset": self.offset, "zoned": zoned})
            given = pl.col("offset").is_not_null()
            zoned = frame.select(pl.when(given).then(pl.col("wall") - pl.col("offset")).otherwise("zoned")).to_series()
            rows_in_fold = rows_in_fold.filter(self.offset.gather(rows_in_fold).is_null())
        return zoned, rows_in_fold


def moments_of_text(texts: pl.Series, date_format: str | None) -> Moments:
    """Read datetimes: ISO 8601 (date alone, minutes, seconds, fraction, offset), or the plan's `date_format`.

    Text that is none, or that names a day which does not exist, gives null.
    """
    if date_format is not None:
        return _moments_by_format(texts, date_format)
    groups = pl.col("text").str.extract_groups(_ISO).struct
    frame = (
        texts.to_frame("text")
        .lazy()
        .select(
            pl.concat_str(
                groups.field("1"),
                pl.lit("T"),
                groups.field("2").fill_null("00:00"),
                pl.lit(":"),
                groups.field("3").fill_null("00"),
            )
            .str.replace(r":60$", ":xx")  # Salesforce knows no leap seconds
            .str.to_datetime(_WALL, time_unit="us", strict=False)
            .alias("wall"),
            groups.field("4").str.to_uppercase().str.replace(":", "", literal=True).alias("zone"),
        )
        .collect()
    )
    if frame["zone"].null_count() == frame.height:
        return Moments(wall=frame["wall"])
    return _with_offsets(frame)


def moments_of_buddhist_text(texts: pl.Series, date_format: str | None, read: Moments) -> tuple[Moments, pl.Series]:
    """Read again those texts that name no day as they stand and do so 543 years earlier, such as `2567-02-29`.

    Args:
        read: What `moments_of_text` made of the texts.
    Returns: all moments, and the rows (u32) that were read by the Buddhist calendar.
    """
    missed = (read.wall.is_null() & texts.is_not_null()).arg_true()
    pattern = _year_pattern(date_format)
    if not missed.len() or pattern is None:
        return read, missed.head(0)
    groups = pl.col("text").str.extract_groups(pattern).struct
    year = groups.field("2").cast(pl.Int32)
    earlier = (
        texts.gather(missed)
        .to_frame("text")
        .select(
            pl.when(year.is_between(*BUDDHIST_YEARS)).then(
                pl.concat_str(groups.field("1"), (year - BUDDHIST_OFFSET).cast(pl.String), groups.field("3"))
            )
        )
        .to_series()
    )
    found = moments_of_text(earlier, date_format)
    known = found.wall.is_not_null().arg_true()
    rows = missed.gather(known)
    wall = read.wall.clone().scatter(rows, found.wall.gather(known))
    if read.offset is None and found.offset is None:
        return Moments(wall=wall), rows
    nothing = pl.repeat(None, texts.len(), dtype=pl.Duration("us"), eager=True)
    offset = nothing if read.offset is None else read.offset.clone()
    if found.offset is not None and known.len():
        offset = offset.scatter(rows, found.offset.gather(known))
    return Moments(wall=wall, offset=offset), rows


@cache
def _year_pattern(date_format: str | None) -> str | None:
    """Three groups: what stands before a year of four digits, the year, and the rest; None for formats without it."""
    if date_format is None:
        return r"^()([0-9]{4})(-.*)$"
    pattern, end = "", 0
    for match in _DIRECTIVE.finditer(date_format.replace("%F", "%Y-%m-%d")):
        pattern += re.escape(match.string[end : match.start()])
        end = match.end()
        code = match.group()[-1]
        pattern += ")([0-9]{4})(" if code == "Y" else "[0-9]{1,3}" if code in "dmeHkIlMSyj" else ".+?"
    pattern += re.escape(date_format.replace("%F", "%Y-%m-%d")[end:])
    return f"(?s)^({pattern})$" if pattern.count(")([0-9]{4})(") == 1 else None


def _with_offsets(frame: pl.DataFrame) -> Moments:
    zone = pl.col("zone")
    hours = zone.str.slice(1, 2).cast(pl.Int64, strict=False)
    minutes = zone.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    is_offset = (hours <= 14) & (minutes <= 59)
    done = frame.select(
        pl.when(zone.is_null() | (zone == "Z") | is_offset).then("wall").alias("wall"),
        pl.when(zone == "Z")
        .then(pl.duration(seconds=0, time_unit="us"))
        .when(is_offset)
        .then(pl.duration(minutes=sign * (hours * 60 + minutes), time_unit="us"))
        .alias("offset"),
    )
    return Moments(wall=done["wall"], offset=done["offset"])


def _moments_by_format(texts: pl.Series, date_format: str) -> Moments:
    if not has_time(date_format):
        return Moments(wall=texts.str.to_date(date_format, strict=False).cast(NAIVE))
    parsed = texts.str.to_datetime(date_format, time_unit="us", strict=False)
    return moments_of_instants(parsed, None) if has_offset(date_format) else Moments(wall=parsed)


def reads_a_day(date_format: str) -> bool:
    """True if text written in this format gives its day back."""
    moment = pl.Series([datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)])
    try:
        read = moments_of_text(moment.dt.strftime(date_format), date_format).wall
    except pl.exceptions.PolarsError:
        return False
    return read.dt.date().to_list() == [date(2001, 2, 3)]


def has_time(date_format: str) -> bool:
    """True if the format reads more than a day."""
    return any(f"%{code}" in date_format for code in ("H", "I", "M", "S", "T", "R", "X", "c", "s", "+", "k", "l", "r"))


def has_offset(date_format: str) -> bool:
    """True if the format reads an offset from UTC."""
    return any(code in date_format for code in ("%z", "%:z", "%#z", "%+"))


def moments_of_instants(values: pl.Series, zone: str | None) -> Moments:
    """Instants as the clocks of `zone` (UTC if None) show them, with their offsets."""
    aware = (
        values
        if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone
        else values.dt.replace_time_zone("UTC")
    )
    utc = aware.dt.convert_time_zone("UTC").dt.replace_time_zone(None).dt.cast_time_unit("us")
    if zone is None or zone == "UTC":
        wall = utc
    else:
        wall = aware.dt.convert_time_zone(zone).dt.replace_time_zone(None).dt.cast_time_unit("us")
        late = _late_rows(utc)
        if late.len():
            wall = wall.scatter(late, _late_to_wall(utc.gather(late), zone))
    return Moments(wall=wall, offset=wall - utc)


def _late_rows(values: pl.Series) -> pl.Series:
    """Rows (u32) after the time that polars knows the clock changes of, up to the last that is valid."""
    bounds = pl.Series([_RULES_END, _LATE_MAX], dtype=values.dtype).to_physical()
    numbers = values.to_physical()
    if not _reaches(numbers, below=None, above=bounds[0] - 1):
        return pl.Series(dtype=pl.UInt32)
    return numbers.is_between(bounds[0], bounds[1]).fill_null(False).arg_true()


def _late_to_utc(walls: pl.Series, zone: str) -> tuple[pl.Series, pl.Series]:
    """Instants of late wall clock times, by Python's zones, whose rules have no end; each distinct value once.

    Null in a gap. Also gives the places (u32) of those that occur twice; the first is taken.
    """
    info = ZoneInfo(zone)
    found: list[tuple[datetime, datetime | None, bool]] = []
    for wall in walls.unique():
        first, second = (wall.replace(tzinfo=info, fold=fold).astimezone(UTC) for fold in (0, 1))
        is_gap = first.astimezone(info).replace(tzinfo=None) != wall
        found.append((wall, None if is_gap else first, first != second and not is_gap))
    schema = {"wall": walls.dtype, "utc": pl.Datetime("us", "UTC"), "twice": pl.Boolean()}
    table = pl.DataFrame(found, schema=schema, orient="row")
    joined = walls.to_frame("wall").join(table, on="wall", how="left", maintain_order="left")
    return joined["utc"], joined["twice"].arg_true()


def _late_to_wall(instants: pl.Series, zone: str) -> pl.Series:
    """What the clocks of a zone show at late instants (naive UTC); each distinct value once."""
    info = ZoneInfo(zone)
    walls = {utc: utc.replace(tzinfo=UTC).astimezone(info).replace(tzinfo=None) for utc in instants.unique()}
    table = pl.DataFrame(
        {"utc": list(walls), "wall": list(walls.values())}, schema={"utc": instants.dtype, "wall": NAIVE}
    )
    return instants.to_frame("utc").join(table, on="utc", how="left", maintain_order="left")["wall"]


def rows_outside(values: pl.Series, low: date, high: date) -> pl.Series:
    """Rows (u32) before `low` or after `high`; nothing is computed per row if the extremes lie inside."""
    # Physical integers, because a year beyond 9999 has no Python date.
    numbers = values.to_physical()
    bounds = pl.Series([low, high], dtype=values.dtype).to_physical()
    if not _reaches(numbers, below=bounds[0], above=bounds[1]):
        return pl.Series(dtype=pl.UInt32)
    return (~numbers.is_between(bounds[0], bounds[1])).fill_null(False).arg_true()


def rows_in_buddhist_years(values: pl.Series) -> pl.Series:
    """Rows (u32) whose year is 2400 to 2700."""
    first, last = BUDDHIST_YEARS
    start = pl.Series([date(first, 1, 1)]).cast(values.dtype).to_physical()[0]
    if not _reaches(values.to_physical(), below=None, above=start - 1):
        return pl.Series(dtype=pl.UInt32)
    return values.dt.year().is_between(first, last).fill_null(False).arg_true()


def _reaches(numbers: pl.Series, *, below: int | None, above: int) -> bool:
    if numbers.null_count() == numbers.len():
        return False
    frame = numbers.to_frame("number").select(pl.min("number").alias("least"), pl.max("number").alias("most"))
    least, most = frame.row(0)
    return bool(most > above or (below is not None and least < below))


def from_buddhist(values: pl.Series) -> pl.Series:
    """543 years earlier; null where that day does not exist (29 February)."""
    moved = values.dt.offset_by(f"-{BUDDHIST_OFFSET}y")
    same_day = moved.dt.day() == values.dt.day()
    return pl.DataFrame({"moved": moved, "same": same_day}).select(pl.when("same").then("moved")).to_series()


def date_text(values: pl.Series) -> pl.Series:
    """`YYYY-MM-DD`."""
    return values.cast(pl.String)


def instant_text(values: pl.Series) -> pl.Series:
    """`YYYY-MM-DDTHH:MM:SSZ` of naive datetimes that stand for UTC; fractions of a second are cut."""
    return values.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
