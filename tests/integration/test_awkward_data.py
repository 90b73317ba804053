"""Awkward values one by one: each arrives unharmed, read back by both APIs, or is rejected with the reason."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.awkward_support import (
    FIELDS,
    LONG,
    PLAN,
    AwkwardWorld,
    Loaded,
    Refused,
    Sent,
    expected,
    failed_records,
    plain,
    row_of,
    world,
)

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]
__all__ = ["world"]

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
THAI = "สวัสดีครับ ผู้ใหญ่บ้านที่น้ำพุ ๑๒๓ ฿"

BODIES: dict[str, str] = {
    "thai": THAI,
    "thai-sara-am": "น้ำ กับ น\u0e49\u0e4d\u0e32",  # composed and decomposed SARA AM differ, and stay so
    "emoji": f"{FAMILY} \U0001f1f9\U0001f1ed \U0001f600\ufe0f",
    "combining": "cafe\u0301 e\u0301\u0327 \u0e01\u0e39\u0e49",
    "hangul": "\u1112\u1161\u11ab 한",
    "rtl": "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c",
    "quotes": '"a" ""b"" """',
    "one-quote": '"',
    "commas": ",,a,,",
    "cr": "a\rb",
    "lf": "a\nb\n\nc",
    "crlf": "a\r\nb\r\n\r\nc",
    "quote-lf": '"\n",\r\n"',
    "tab": "a\tb",
    "blanks": " \t\n\v\f\r a b \r\n ",
    "only-blanks": " \t\r\n ",
    "hard-space": "\u00a0a\u00a0",
    "ideographic-space": "\u3000a\u3000",
    "line-separators": "a\u2028b\u2029c",
    "bom": "\ufeffa",
    "zero-width": "a\u200bb\u200d\u2060",
    "only-zero-width": "\u200b",
    "na": "#N/A",
    "na-blanks": " #N/A\n",
    "na-lower": "#n/a",
    "na-inside": "x#N/A",
    "na-in-controls": "\x01#N/A\x02",
    "na-quoted": '"#N/A"',
    "controls": "".join(chr(code) for code in range(1, 32) if code not in (9, 10, 13))
    + "x\x7f"
    + "".join(map(chr, range(0x80, 0xA0)))
    + "y",
    "only-controls": "\x01\x02",
    "blank-in-controls": "\x01 \x02",
    "replacement": "a\ufffdb",
    "noncharacters": "a\ufffe\uffff\U0010ffffb",
    "private": "\ue000\U000f0000",
    "null-words": "NULL",
    "backslash-n": "\\N",
    "nan": "NaN",
    "formula": '=HYPERLINK("http://x","y")',
    "soql": "O'Neil \\' %_ ; -- {0} ${HOME} %s",
    "html": "<b>&amp;</b><!-- x --> &#10;",
    "json": '{"a": "\\u0000"}',
    "long": "ก" * LONG,
    "long-emoji": "\U0001f600" * (LONG // 2),
    "long-lines": '"\n' * (LONG // 2 - 1) + "x",
    "too-long": "ก" * (LONG + 1),
    "too-long-emoji": "\U0001f600" * (LONG // 2) + "x",
}


def check(loaded: Loaded, rows: list[dict[str, Any]], wanted: Mapping[str, Sent | Refused]) -> None:
    """Every row ends as foreseen, and what arrived is told alike by both APIs."""
    assert loaded.outcomes, loaded.err
    assert loaded.rest.keys() == loaded.bulk.keys() == {key for key, end in wanted.items() if isinstance(end, Sent)}
    for row in rows:
        key, end = row["ID"], wanted[row["ID"]]
        if isinstance(end, Refused):
            assert loaded.outcomes[key] == ("rejected", f"REJECTED_{end.rule.upper()}"), key
            continue
        assert loaded.outcomes[key] == ("created", None), key
        assert loaded.rest[key] == as_doubles(end.fields), key
        assert loaded.bulk[key] == as_doubles(end.fields), key
    records = failed_records(loaded.audit)
    assert {key: code for key, (code, _) in records.items()} == {
        key: f"REJECTED_{end.rule.upper()}" for key, end in wanted.items() if isinstance(end, Refused)
    }


def as_doubles(fields: Mapping[str, str | None]) -> dict[str, str | None]:
    """The org holds numbers as doubles and shows their shortest decimal: beyond 15 digits another one than was sent."""
    return {
        name: plain(Decimal(repr(float(text)))) if text is not None and name in ("Big__c", "Price__c") else text
        for name, text in fields.items()
    }


def composed(text: str | None) -> str | None:
    if text is None:
        return None
    bare = "".join(char for char in text if char not in "\u200b\u200c\u200d\u2060\ufeff")
    return unicodedata.normalize("NFC", bare) or None


def foreseen(rows: list[dict[str, Any]]) -> dict[str, Sent | Refused]:
    return {row["ID"]: expected(row, compose=composed) for row in rows}


# SQLite, DuckDB and files hold U+0000 in texts; PostgreSQL cannot.
@pytest.mark.parametrize("kind", ["sqlite", "csv", "duckdb", "parquet"])
def test_texts(kind: str, world: AwkwardWorld) -> None:
    bodies = {**BODIES, "nul": "a\x00b", "only-nul": "\x00", "nul-ends": "\x00 a \x00"}
    rows = [row_of(ID=f"{kind}-{name}", BODY=body) for name, body in bodies.items()]
    wanted = foreseen(rows)
    # By hand, beside the oracle: the cases that people ask about.
    ends = {name: wanted[f"{kind}-{name}"] for name in bodies}
    assert ends["na"] == ends["na-blanks"] == ends["na-in-controls"] == Refused("na_text")
    assert ends["too-long"] == ends["too-long-emoji"] == Refused("too_long")
    texts = {name: end.fields["Body__c"] for name, end in ends.items() if isinstance(end, Sent)}
    assert (texts["crlf"], texts["cr"], texts["blanks"], texts["only-blanks"]) == ("a\nb\n\nc", "a\nb", "a b", None)
    assert (texts["nul"], texts["only-nul"], texts["nul-ends"]) == ("ab", None, "a")
    assert texts["controls"] == "xy"
    unharmed = set(texts) - {
        "crlf", "cr", "quote-lf", "blanks", "only-blanks", "nul", "only-nul", "nul-ends", "controls", "only-controls",
        "blank-in-controls",
    }  # fmt: skip
    assert {name: texts[name] for name in unharmed} == {name: bodies[name] for name in unharmed}
    check(world.run(rows, kind=kind, prefix=f"{kind}-"), rows, wanted)


@pytest.mark.parametrize("kind", ["sqlite", "csv"])
@pytest.mark.parametrize(("encoding", "name"), [("tis-620", "TIS-620"), ("cp874", "windows-874")])
def test_thai_bytes(kind: str, encoding: str, name: str, world: AwkwardWorld) -> None:
    """Bytes of both Thai encodings; the euro sign stands in one of them only."""
    extra = "€“”…–" if encoding == "cp874" else ""
    texts = {"thai": THAI + extra, "padded": f" {THAI} ", "lines": 'น้ำ\r\n"พุ",', "na": "#N/A", "ascii": "plain"}
    rows = [row_of(ID=f"{kind}-{encoding}-{key}", BODY=text) for key, text in texts.items()]
    wanted = foreseen(rows)
    raw = [{**row, "BODY": row["BODY"].encode(encoding)} for row in rows]
    broken = {**row_of(ID=f"{kind}-{encoding}-broken"), "BODY": "น้ำ".encode(encoding) + b"\xff"}
    wanted[broken["ID"]] = Refused("encoding_error")
    loaded = world.run([*raw, broken], kind=kind, encoding=name, prefix=f"{kind}-{encoding}-")
    check(loaded, [*raw, broken], wanted)
    assert loaded.rest[f"{kind}-{encoding}-thai"]["Body__c"] == THAI + extra


@pytest.mark.parametrize("kind", ["sqlite", "csv"])
def test_one_column_has_an_encoding_of_its_own(kind: str, world: AwkwardWorld) -> None:
    """A source in UTF-8 with one column in windows-874: both are read, and broken bytes of either reject their row."""
    plan = PLAN.replace("BODY: Body__c", "BODY: {{field: Body__c, encoding: windows-874, personal: false}}")
    assert plan != PLAN
    rows: list[dict[str, Any]] = [
        row_of(ID=f"own-{kind}-both", BODY=THAI, STRICT=THAI),
        row_of(ID=f"own-{kind}-long", BODY="€" * 100, STRICT="น้ำ", MUST="x" * 21),
    ]
    wanted = foreseen(rows)
    wanted[f"own-{kind}-long"] = Refused("too_long")
    raw = [{**row, "BODY": row["BODY"].encode("cp874")} for row in rows]
    for key, column, data in (("874", "BODY", b"\xa1\xff"), ("utf8", "STRICT", b"\xa1")):
        row = {**row_of(ID=f"own-{kind}-{key}"), column: data}
        raw.append(row)
        wanted[row["ID"]] = Refused("encoding_error")
    loaded = world.run(raw, kind=kind, plan=plan, prefix=f"own-{kind}-")
    check(loaded, raw, wanted)
    records = failed_records(loaded.audit)
    assert records[f"own-{kind}-874"][1]["BODY"] == "ก\ufffd"
    assert records[f"own-{kind}-long"][1]["BODY"] == "€" * 100
    assert records[f"own-{kind}-long"][1]["STRICT"] == "***"


@pytest.mark.parametrize("stored", ["UTF8", "SQL_ASCII"])
def test_postgresql(stored: str, world: AwkwardWorld, postgres: Postgres) -> None:
    """All texts that PostgreSQL can hold; and windows-874 in one column of a database that takes any bytes."""
    database = postgres.create_database(f"ENCODING '{stored}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    plan, prefix = PLAN, f"pg-{stored.lower().replace('_', '-')}-"
    rows: list[dict[str, Any]] = [row_of(ID=prefix + name, BODY=body) for name, body in BODIES.items()]
    wanted = foreseen(rows)
    if stored == "SQL_ASCII":
        plan = PLAN.replace("LINE: {{field: Line__c,", "LINE: {{field: Line__c, encoding: windows-874,")
        assert plan != PLAN
        rows += [row_of(ID=f"{prefix}874", LINE="€ น้ำ"), row_of(ID=f"{prefix}broken", LINE="x")]
        wanted |= foreseen(rows[-2:])
        wanted[f"{prefix}broken"] = Refused("encoding_error")
        rows = [{**row, "LINE": row["LINE"].encode("cp874") if row["LINE"] else None} for row in rows]
        rows[-1]["LINE"] = b"x\xff"
    columns = ", ".join(f'"{name}" text' for name in rows[0])
    with psycopg.connect(postgres.dsn(database), client_encoding=stored) as connection:
        connection.execute(f"CREATE TABLE awkward ({columns})")
        # As bytes: the server takes them for text of its own encoding.
        values = ", ".join("convert_from(%s, getdatabaseencoding())" for _ in rows[0])
        for row in rows:
            raw = [value.encode() if isinstance(value, str) else value for value in row.values()]
            connection.execute(f"INSERT INTO awkward VALUES ({values})", raw)
    url = postgres.url(database).replace("@/", "@localhost/")
    check(world.run(rows, plan=plan, url=url, prefix=prefix), rows, wanted)
    postgres.drop_database(database)


def test_control_characters_that_are_kept(world: AwkwardWorld) -> None:
    """`control_characters: keep` brings all of them through CSV and HTTP, but never NUL."""
    kept = [chr(code) for code in (*range(1, 32), *range(0x7F, 0xA0)) if code not in (*range(9, 14), 0x20)]
    plan = PLAN.replace("BODY: Body__c", "BODY: {{field: Body__c, control_characters: keep}}")
    rows = [row_of(ID=f"k-{ord(char)}", BODY=f"a{char}b") for char in [*kept, "\x00"]]
    wanted: dict[str, Sent | Refused] = {}
    for row in rows:
        end = expected(row_of(), compose=composed)
        assert isinstance(end, Sent)
        wanted[row["ID"]] = Sent({**end.fields, "Body__c": row["BODY"].replace("\x00", "")})
    check(world.run(rows, plan=plan, prefix="k-"), rows, wanted)


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_an_encoding_of_decoded_text_is_a_fault_of_the_plan(kind: str, world: AwkwardWorld) -> None:
    plan = PLAN.replace("BODY: Body__c", "BODY: {{field: Body__c, encoding: windows-874}}")
    loaded = world.run([row_of(ID="never", BODY="x")], kind=kind, plan=plan, prefix="never")
    assert loaded.code == 2
    assert "line 12" in loaded.err
    assert "BODY" in loaded.err
    assert "never as bytes" in loaded.err
    assert loaded.outcomes == loaded.rest == {}


def test_utf_16_in_a_csv_column_is_a_fault_of_the_plan(world: AwkwardWorld) -> None:
    plan = PLAN.replace("BODY: Body__c", "BODY: {{field: Body__c, encoding: utf-16-le}}")
    loaded = world.run([row_of(ID="never", BODY="x")], kind="csv", plan=plan, prefix="never")
    assert loaded.code == 2
    assert "line 12" in loaded.err
    assert "does not keep ASCII" in loaded.err


NUMBERS = {
    "digits-15": ("123456789012345", "1234567890123.45"),
    "digits-16": ("9007199254740993", "12345678901234.56"),
    "digits-18": ("999999999999999999", "99999999999999.99"),
    "digits-18-minus": ("-123456789012345678", "-99999999999999.99"),
    "digits-19": ("1000000000000000000", None),
    "minus-zero": ("-0", "-0.00"),
    "rounds-to-zero": ("-0.4", "-0.004"),
    "half": ("0.5", "0.005"),
    "half-minus": ("-2.5", "-2.675"),
    "rounds-up-and-out": (None, "99999999999999.995"),
    "exponent": ("1E3", "1.5e-2"),
    "exponent-out": ("1e30", None),
    "plus": ("+7", "+.5"),
    "zeros": ("000000000000000000000042", "0.100000000000000000000000"),
    "blanks": (" 42 ", "\t1.5\n"),
    "thousands": ("1,000", None),
    "arabic-digits": ("١٢", None),
    "thai-digits": ("๑๒", None),
    "hex": ("0x10", None),
    "underscore": ("1_000", None),
    "infinity": ("Infinity", None),
    "nan": ("NaN", None),
    "na": ("#N/A", None),
    "word": ("twelve", None),
    "none": (None, None),
}


def test_numbers(world: AwkwardWorld) -> None:
    rows = [row_of(ID=f"n-{name}", BIG=big, PRICE=price) for name, (big, price) in NUMBERS.items()]
    wanted = foreseen(rows)
    prices = {key: end.fields["Price__c"] for key, end in wanted.items() if isinstance(end, Sent)}
    assert prices["n-minus-zero"] == prices["n-rounds-to-zero"] == "0"
    assert (prices["n-half"], prices["n-half-minus"]) == ("0.01", "-2.68")
    assert wanted["n-digits-19"] == wanted["n-rounds-up-and-out"] == Refused("number_size")
    loaded = world.run(rows, prefix="n-")
    check(loaded, rows, wanted)
    assert loaded.rest["n-digits-15"]["Big__c"] == "123456789012345"


DAYS = {
    "first": "1700-01-01", "before": "1699-12-31", "last": "4000-12-31", "after": "4001-01-01", "leap": "2000-02-29",
    "no-leap": "1900-02-29", "feb-30": "2024-02-30", "buddhist": "2567-03-01", "year-0": "0000-01-01",
    "year-10000": "10000-01-01", "slashes": "29/02/2024", "words": "today", "with-time": "2024-02-29 10:00:00",
}  # fmt: skip
MOMENTS = {
    "gap": "2024-03-10 02:30:00",
    "gap-begins": "2024-03-10 02:00:00",
    "gap-ends": "2024-03-10 03:00:00",
    "before-gap": "2024-03-10 01:59:59.999999",
    "fold": "2024-11-03 01:30:00",
    "after-fold": "2024-11-03 02:00:00",
    "first-year": "1700-01-01 00:00:00",
    "too-early": "1699-12-31 18:00:00",
    "early-in-utc": "1699-12-31 20:00:00",
    "last": "4000-12-31 18:59:59",
    "last-out-in-utc": "4000-12-31 23:00:00",
    "late-summer": "3999-07-01 12:00:00",
    "late-gap": "3999-03-14 02:30:00",
    "local-mean-time": "1850-06-01 12:00:00",
    "fraction": "2024-07-01 12:00:00.999999",
    "hour-24": "2024-07-01 24:00:00",
    "leap-second": "2016-12-31 18:59:60",
}


def test_days_and_moments(world: AwkwardWorld) -> None:
    rows = [row_of(ID=f"d-{name}", DAY=day) for name, day in DAYS.items() if name != "with-time"]
    rows += [row_of(ID=f"t-{name}", AT=at) for name, at in MOMENTS.items()]
    wanted = foreseen(rows)
    assert {key for key, end in wanted.items() if isinstance(end, Refused)} == {
        *(f"d-{name}" for name in ("before", "after", "no-leap", "feb-30", "year-0", "year-10000", "slashes", "words")),
        *(f"t-{name}" for name in ("gap", "gap-begins", "too-early", "last-out-in-utc", "hour-24", "leap-second")),
        "t-late-gap",
    }
    moments = {key: end.fields["At__c"] for key, end in wanted.items() if isinstance(end, Sent)}
    assert moments["t-fold"] == "2024-11-03T05:30:00Z"  # the first of the two
    assert moments["t-gap-ends"] == "2024-03-10T07:00:00Z"
    assert moments["t-early-in-utc"] == "1700-01-01T00:56:02Z"
    loaded = world.run(rows, prefix="%")
    for key in list(loaded.rest):
        if not key.startswith(("d-", "t-")):
            del loaded.rest[key], loaded.bulk[key]
    check(loaded, rows, wanted)


YEARS: dict[str, dict[str, str | None]] = {
    "convert": {
        "2567-03-01": "2024-03-01",
        "2567-02-29": "2024-02-29",
        "2568-02-29": None,
        "2400-01-01": "1857-01-01",
        "2700-12-31": "2157-12-31",
        "2399-12-31": "2399-12-31",
        "2701-01-01": "2701-01-01",
    },
    "reject": {"2567-03-01": None, "2567-02-29": None, "2399-12-31": "2399-12-31"},
    "keep": {"2567-03-01": "2567-03-01", "2567-02-29": None},
    "warn": {"2567-03-01": "2567-03-01"},
}


@pytest.mark.parametrize(("rule", "ends"), YEARS.items())
def test_buddhist_years(rule: str, ends: dict[str, str | None], world: AwkwardWorld) -> None:
    rows = [row_of(ID=f"b-{rule}-{day}", DAY=day) for day in ends]
    plan = PLAN.replace("keep}}\n      AT", f"{rule}}}}}\n      AT")
    assert rule == "keep" or plan != PLAN
    loaded = world.run(rows, plan=plan, prefix=f"b-{rule}-")
    assert {key.removeprefix(f"b-{rule}-"): record["Day__c"] for key, record in loaded.rest.items()} == {
        day: end for day, end in ends.items() if end is not None
    }
    assert {key: record["Day__c"] for key, record in loaded.bulk.items()} == {
        key: record["Day__c"] for key, record in loaded.rest.items()
    }
    for day, end in ends.items():
        outcome, code = loaded.outcomes[f"b-{rule}-{day}"]
        assert outcome == ("rejected" if end is None else "created"), day
        assert code in ((None,) if end is not None else ("REJECTED_BUDDHIST_ERA", "REJECTED_INVALID_DATE"))


def test_booleans_and_required_fields(world: AwkwardWorld) -> None:
    spellings = ["true", "FALSE", "T", "f", "Yes", "no", "Y", "n", "1", "0", "on", "OFF", " true ", "", None]
    rows = [row_of(ID=f"f-{at}", FLAG=spelling) for at, spelling in enumerate(spellings)]
    rows += [row_of(ID=f"f-bad-{at}", FLAG=text) for at, text in enumerate(["maybe", "2", "TRUEE", "ja", "#N/A", "ｙ"])]
    musts = [None, "", " ", "\t\r\n", "\x01", "\x00", " x ", "\u200b"]
    rows += [row_of(ID=f"f-must-{at}", MUST=text) for at, text in enumerate(musts)]
    wanted = foreseen(rows)
    assert [wanted[f"f-must-{at}"] for at in range(6)] == [Refused("empty_required")] * 6
    flags = [end.fields["Flag__c"] for at in range(15) if isinstance(end := wanted[f"f-{at}"], Sent)]
    assert flags == ["true", "false"] * 6 + ["true", "false", "false"]
    check(world.run(rows, prefix="f-"), rows, wanted)


def test_strict_columns_and_composed_ones(world: AwkwardWorld) -> None:
    rows = [
        row_of(ID="s-blank", STRICT=" x"),
        row_of(ID="s-control", STRICT="a\x07b"),
        row_of(ID="s-nul", STRICT="a\x00b"),
        row_of(ID="s-c1", STRICT="a\x85b"),
        row_of(ID="s-tab", STRICT="a\tb"),
        row_of(ID="s-nfc", LINE="cafe\u0301"),
        row_of(ID="s-zero", LINE="a\u200bb\ufeff"),
        row_of(ID="s-none", LINE="\u200b"),
        row_of(ID="s-na", LINE="#N/A"),
        row_of(ID="s-na-zero", LINE="#N\u200b/A"),
        row_of(ID="s-cut", LINE="x" * 29 + FAMILY),
        row_of(ID="s-cut-blank", LINE="x" * 29 + " y"),
        row_of(ID="s-fits", LINE="\U0001f600" * 15),
    ]
    wanted = foreseen(rows)
    by_hand = {"s-cut": "x" * 29, "s-cut-blank": "x" * 29, "s-na-zero": None, "s-na": None, "s-none": None}
    for key, line in by_hand.items():
        end = wanted[key]
        assert isinstance(end, Sent)
        end.fields["Line__c"] = line
    assert wanted["s-nfc"] == Sent({**dict.fromkeys(FIELDS), "Flag__c": "false", "Must__c": "x", "Line__c": "café"})
    loaded = world.run(rows, prefix="s-")
    check(loaded, rows, wanted)
