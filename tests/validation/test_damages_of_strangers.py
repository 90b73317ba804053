"""Forty more kinds of damage, which the drill does not have: each named at level 5 by key and field, and nothing else.

Most are what other programs do to texts on their way: forms of Unicode, blanks that are not blank, digits of other
scripts. Some look like damage and are none, since the org or the canonical form folds them: these must not be reported.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest
from tests.validation.little_world import API, LittleWorld, checks_of, little_world

from forcelift.errors import ExitCode

ROWS = 60
FIELDS: dict[str, dict[str, Any]] = {
    "Name": {"type": "string", "length": 80},
    "Key__c": {"type": "string", "length": 40, "externalId": True},
    "Title__c": {"type": "string", "length": 255},
    "Secret__c": {"type": "string", "length": 255},
    "Note__c": {"type": "textarea", "length": 32_768},
    "Web__c": {"type": "url", "length": 255},
    "Fine__c": {"type": "double", "precision": 18, "scale": 4},
    "Big__c": {"type": "double", "precision": 18, "scale": 0},
    "Day__c": {"type": "date"},
    "At__c": {"type": "datetime"},
    "Paid__c": {"type": "boolean"},
    "Status__c": {"type": "picklist", "values": ["Open", "Closed"]},
    "Tags__c": {"type": "multipicklist", "values": ["a", "b", "c"]},
    "System__c": {"type": "string", "length": 20},
    "Up__c": {"type": "reference", "referenceTo": "Thing__c", "relationshipName": "Up__r"},
}
MAP = (
    "{title: {field: Title__c, personal: false}, secret: Secret__c, note: {field: Note__c, personal: false},"
    " web: {field: Web__c, personal: false}, fine: {field: Fine__c, negative: keep}, big: Big__c, day: Day__c,"
    " at_: At__c, paid: Paid__c, status: {field: Status__c, personal: false}, tags: {field: Tags__c, personal: false},"
    " up: {field: Up__r.Key__c, parent: things, missing_parent: to_null}}"
)
SOURCE = f"""
CREATE TABLE things AS SELECT 'S' || lpad(i::VARCHAR, 5, '0') AS code,
  'Café – ﬁne nº ' || i || ' น้ำ ๑ 👨‍👩‍👧 👍🏽 tab' || chr(9) || 'x soft' || chr(173) || 'hy \\n' AS title,
  'secret ' || i AS secret,
  'line1 ' || i || chr(10) || 'line2' || chr(10) || repeat('lorem ipsum ', 2000) || 'end' AS note,
  'http://example.com/' || i AS web, (i / 7.0)::DECIMAL(18, 4) AS fine, 999999999999940 + i AS big,
  DATE '2024-03-04' + (i % 5)::INT AS day, TIMESTAMP '2024-02-29 23:30:00' + i * INTERVAL 1 SECOND AS at_,
  i % 2 = 0 AS paid, CASE WHEN i % 3 <> 0 THEN 'Open' END AS status, CASE WHEN i % 4 <> 0 THEN 'c;a' END AS tags,
  CASE WHEN i % 10 = 1 THEN 'S' || lpad((i - 1)::VARCHAR, 5, '0') END AS up FROM range({ROWS}) AS r(i)
"""


@dataclass(frozen=True)
class Change:
    """One value of one record is changed. `is_damage` False: it must not be seen."""

    name: str
    number: int
    field: str
    change: Callable[[Any], Any]
    is_damage: bool = True
    sent_as: str | None = None


CHANGES = (
    Change("a hard blank at the end", 2, "Title__c", lambda text: text + "\u00a0"),
    Change("an ideographic blank at the end", 3, "Title__c", lambda text: text + "\u3000"),
    Change("blanks at the end, which the org trims", 4, "Title__c", lambda text: text + "  ", is_damage=False),
    Change("a byte order mark in front", 5, "Title__c", lambda text: "\ufeff" + text),
    Change("a family of emoji taken apart", 6, "Title__c", lambda text: text.replace("\u200d", "")),
    Change("a skin tone lost", 7, "Title__c", lambda text: text.replace("\U0001f3fd", "")),
    Change("another emoji", 8, "Title__c", lambda text: text.replace("👍", "👎")),
    Change("compatibility forms (NFKC)", 9, "Title__c", lambda text: unicodedata.normalize("NFKC", text)),
    Change("sara am taken apart", 10, "Title__c", lambda text: text.replace("\u0e33", "\u0e4d\u0e32")),
    Change("a Thai digit turned Arabic", 12, "Title__c", lambda text: text.replace("๑", "1")),
    Change("a dash turned hyphen", 13, "Title__c", lambda text: text.replace("–", "-")),
    Change("a tab turned blank", 14, "Title__c", lambda text: text.replace("\t", " ")),
    Change("a soft hyphen lost", 15, "Title__c", lambda text: text.replace("\u00ad", "")),
    Change("a backslash and n turned line end", 16, "Title__c", lambda text: text.replace("\\n", "\n.")),
    Change("a full-width letter", 17, "Title__c", lambda text: text.replace("C", "Ｃ", 1)),
    Change("a ligature taken apart", 18, "Title__c", lambda text: text.replace("ﬁ", "fi")),
    Change("LF turned CRLF, which is folded", 19, "Note__c", lambda text: text.replace("\n", "\r\n"), is_damage=False),
    Change("a line end doubled", 20, "Note__c", lambda text: text.replace("\n", "\n\n", 1)),
    Change("a line end turned U+2028", 22, "Note__c", lambda text: text.replace("\n", "\u2028", 1)),
    Change("the last character of a long text", 23, "Note__c", lambda text: text[:-1]),
    Change("the middle of a long text", 24, "Note__c", lambda text: text[:12_000] + "X" + text[12_001:]),
    Change("another scheme", 25, "Web__c", lambda text: text.replace("http:", "https:")),
    Change("the fourth decimal", 26, "Fine__c", lambda number: round(number + 0.0001, 4)),
    Change("the sign of a fraction", 27, "Fine__c", lambda number: -number),
    Change("the last of 15 digits", 28, "Big__c", lambda number: number + 1),
    Change("16 digits in place of 15", 29, "Big__c", lambda number: 1_000_000_000_000_000),
    Change("14 digits in place of 15", 30, "Big__c", lambda number: int(number) // 10),
    Change("day and month exchanged", 33, "Day__c", lambda day: f"{day[:5]}{day[8:]}-{day[5:7]}"),
    Change("another century", 34, "Day__c", lambda day: "19" + day[2:]),
    Change("the day after in the night of a leap day", 35, "At__c", lambda moment: "2024-03-01" + moment[10:]),
    Change("a no turned yes", 37, "Paid__c", lambda value: True),
    Change("a value of a list in lower case", 38, "Status__c", str.lower),
    Change("no value of a list turned one", 39, "Status__c", lambda value: "Open"),
    Change("one value of several more", 42, "Tags__c", lambda text: "a;b;c"),
    Change("several in the org's own order", 43, "Tags__c", lambda text: "c;a", is_damage=False),
    Change("a constant", 45, "System__c", lambda text: "KPT"),
    Change("a computed name", 46, "Name", lambda text: text.replace("-", "–")),
    Change("a lookup to itself emptied", 51, "Up__c", lambda value: None, sent_as="Up__r.Key__c"),
)


def key_of(number: int) -> str:
    return f"S{number:05d}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleWorld]:
    """Left by each test as it was found."""
    folder = tmp_path_factory.mktemp("strangers")
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as source:
        source.execute(SOURCE)
    with little_world(folder, schema={"objects": {"Thing__c": {"fields": FIELDS}}}) as made:
        made.write_plan(
            f"duckdb:///{folder}/source.duckdb",
            fields=MAP,
            more=", timezone: Asia/Bangkok",
            rules='constants: {System__c: KPS}\n    computed: {Name: {concat: [{text: "S-"}, code]}}',
        )
        made.run()
        yield made


def named(world: LittleWorld) -> set[tuple[str, str, str | None]]:
    """What level 5 names; its exit code says the same."""
    screen = world.validate("--level", "5")
    found = {(one["kind"], one["key"], one["field"]) for check in checks_of(screen, 5) for one in check["examples"]}
    assert screen.code == (ExitCode.ROWS_REFUSED if found else ExitCode.DONE), screen.err
    return found


def record_of(world: LittleWorld, number: int) -> dict[str, Any]:
    names = ["Id", *FIELDS]
    (record,) = world.query(f"SELECT {', '.join(names)} FROM Thing__c WHERE Key__c = '{key_of(number)}'")
    return {name: record[name] for name in names}


def test_an_undamaged_org_has_nothing_to_report(world: LittleWorld) -> None:
    assert named(world) == set()


def test_damage_of_all_kinds_at_once_is_named_record_by_record(world: LittleWorld) -> None:
    """Each in a record of its own; together, since a record's comparison knows nothing of the others."""
    before = {}
    for one in CHANGES:
        record = record_of(world, one.number)
        before[one.number] = record
        after = one.change(record[one.field])
        assert after != record[one.field] or not one.is_damage, f"{one.name} changes nothing"
        world.change(key_of(one.number), {one.field: after})
    try:
        found = named(world)
    finally:
        for one in CHANGES:
            world.change(key_of(one.number), {one.field: before[one.number][one.field]})
    expected = {("differs", key_of(one.number), one.sent_as or one.field) for one in CHANGES if one.is_damage}
    assert {place[1]: place for place in found} == {place[1]: place for place in expected}
    assert found == expected
    assert len({one.number for one in CHANGES}) == len(CHANGES)
    assert named(world) == set()


def test_personal_values_of_a_changed_record_are_masked_and_others_are_not(world: LittleWorld) -> None:
    record = record_of(world, 55)
    world.change(key_of(55), {"Secret__c": "somebody", "Web__c": None, "Paid__c": True})
    try:
        screen = world.validate("--level", "5")
    finally:
        world.change(key_of(55), {name: record[name] for name in ("Secret__c", "Web__c", "Paid__c")})
    examples = checks_of(screen, 5, "records")[0]["examples"]
    assert {(one["field"], one["source"], one["target"]) for one in examples} == {
        ("Secret__c", "***", "***"),
        ("Web__c", "http://example.com/55", None),
        ("Paid__c", "false", "true"),
    }
    assert "somebody" not in screen.out
    assert b"somebody" not in (world.folder / "state" / "audit.db").read_bytes()


def test_keys_exchanged_and_keys_that_only_look_alike(world: LittleWorld) -> None:
    """Two records exchange their keys; others come with a key that a reader takes for one of ours."""
    one, two = record_of(world, 56)["Id"], record_of(world, 57)["Id"]
    alike = [f"{key_of(58)}\u00a0", key_of(58).replace("S", "Ｓ"), key_of(58).lower()]
    extra = [world.create({"Key__c": key, "Name": "alike"}) for key in alike]
    unkeyed = world.create({"Name": "of others"})

    def set_keys(first: str, second: str) -> None:
        for record_id, key in ((one, first), (two, second)):
            answer = world.client.patch(f"{API}/sobjects/Thing__c/{record_id}", json={"Key__c": key})
            assert answer.status_code == 204, answer.text

    set_keys(key_of(57), key_of(56))
    try:
        found = named(world)
    finally:
        set_keys(key_of(56), key_of(57))
        for record_id in [*extra, unkeyed]:
            assert world.client.delete(f"{API}/sobjects/Thing__c/{record_id}").status_code == 204
    assert found == {
        ("differs", key_of(56), "Key__c"),
        ("differs", key_of(57), "Key__c"),
        *(("extra", key, None) for key in alike),
    }
    assert named(world) == set()
