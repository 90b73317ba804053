"""Sixty kinds of small damage, each done alone and by REST behind the tool's back, and how each is undone.

Rows are chosen so that the damage has something to bite on: see the table in `damage_world`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from tests.validation.damage_world import REJECTED, DamageWorld, key_of

Undo = Callable[[], None]
Place = tuple[str, str, str | None]
"""What level 5 must name: kind, key, field."""


@dataclass(frozen=True)
class Damage:
    """One kind of damage.

    Attributes:
        name: As people call it.
        do: Carries it out and gives what must be named, and what undoes it.
    """

    name: str
    do: Callable[[DamageWorld], tuple[Place, Undo]]


def _field(name: str, field: str, number: int, change: Callable[[Any], Any], *, sent_as: str | None = None) -> Damage:
    """One value of one record is changed."""

    def do(world: DamageWorld) -> tuple[Place, Undo]:
        record = world.sale(number)
        before = record[field]
        after = change(before)
        assert after != before, f"{name} changes nothing"
        world.change(record["Id"], {field: after})
        return ("differs", key_of(number), sent_as or field), lambda: world.change(record["Id"], {field: before})

    return Damage(name, do)


def _lookup(name: str, field: str, number: int, target: Callable[[DamageWorld], str | None], sent_as: str) -> Damage:
    def do(world: DamageWorld) -> tuple[Place, Undo]:
        record = world.sale(number)
        after = target(world)
        assert record[field] != after
        world.change(record["Id"], {field: after})
        return ("differs", key_of(number), sent_as), lambda: world.change(record["Id"], {field: record[field]})

    return Damage(name, do)


def _lost(name: str, number: int) -> Damage:
    def do(world: DamageWorld) -> tuple[Place, Undo]:
        record = world.sale(number)
        world.delete(record["Id"])
        return ("missing", key_of(number), None), lambda: world.undelete([record["Id"]])

    return Damage(name, do)


def _extra(name: str, key: str) -> Damage:
    def do(world: DamageWorld) -> tuple[Place, Undo]:
        record_id = world.create({"Key__c": key, "Name": "nobody sent it"})
        return ("extra", key, None), lambda: world.delete(record_id)

    return Damage(name, do)


def _made_again(world: DamageWorld) -> tuple[Place, Undo]:
    """The record is deleted, and one with the same values is made in its place."""
    record = world.sale(20)
    world.delete(record["Id"])
    copy = world.create({name: value for name, value in record.items() if name != "Id" and value is not None})

    def undo() -> None:
        world.delete(copy)
        world.undelete([record["Id"]])

    return ("missing", key_of(20), None), undo


def _doubled(world: DamageWorld) -> tuple[Place, Undo]:
    record = world.sale(21)
    copy = world.create({name: value for name, value in record.items() if name != "Id" and value is not None})
    return ("extra", key_of(21), None), lambda: world.delete(copy)


def _swapped(world: DamageWorld) -> tuple[Place, Undo]:
    """Two records exchange their titles, so that no count and no sum changes."""
    one, two = world.sale(24), world.sale(25)
    world.change(one["Id"], {"Title__c": two["Title__c"]})
    world.change(two["Id"], {"Title__c": one["Title__c"]})

    def undo() -> None:
        world.change(one["Id"], {"Title__c": one["Title__c"]})
        world.change(two["Id"], {"Title__c": two["Title__c"]})

    return ("differs", key_of(24), "Title__c"), undo


def _moved(world: DamageWorld) -> tuple[Place, Undo]:
    """A cent goes from one record to another, so that the sum stays."""
    one, two = world.sale(26), world.sale(27)
    world.change(one["Id"], {"Amount__c": one["Amount__c"] - 0.01})
    world.change(two["Id"], {"Amount__c": two["Amount__c"] + 0.01})

    def undo() -> None:
        world.change(one["Id"], {"Amount__c": one["Amount__c"]})
        world.change(two["Id"], {"Amount__c": two["Amount__c"]})

    return ("differs", key_of(26), "Amount__c"), undo


def _shifted(**shift: int) -> Callable[[str], str]:
    def change(text: str) -> str:
        moment = datetime.fromisoformat(text.replace("+0000", "+00:00"))
        return (moment + timedelta(**shift)).strftime("%Y-%m-%dT%H:%M:%S.000+0000")

    return change


def _year_of_buddha(text: str) -> str:
    day = date.fromisoformat(text)
    return day.replace(year=day.year + 543).isoformat()


def _exchanged(text: str) -> str:
    """Two neighbouring letters change places."""
    return text[:3] + text[4] + text[3] + text[5:]


DAMAGES: tuple[Damage, ...] = (
    # Records
    _lost("a lost record", 12),
    _lost("the first record lost", 0),
    _extra("an extra record", "S999999999"),
    Damage("a doubled record", _doubled),
    _extra("a doubled key in another case", key_of(22).lower()),
    _extra("a record for a rejected row", key_of(REJECTED)),
    Damage("a record deleted and made again", _made_again),
    _field("a changed key", "Key__c", 23, lambda key: f"{key}x"),
    _field("an emptied key", "Key__c", 28, lambda key: None),
    _field("a key in another case", "Key__c", 29, str.lower),
    # Texts
    _field("one character", "Title__c", 30, lambda text: text.replace("T", "P", 1)),
    _field("one character more", "Title__c", 31, lambda text: text + "."),
    _field("one character less", "Title__c", 32, lambda text: text[1:]),
    _field("a truncated text", "Note__c", 33, lambda text: text[:20]),
    _field("a changed case", "Name", 34, str.upper),
    _field("two letters exchanged", "Title__c", 36, _exchanged),
    Damage("the texts of two records exchanged", _swapped),
    _field("a null turned into a text", "Note__c", 35, lambda text: "null"),
    _field("a text turned null", "Note__c", 37, lambda text: None),
    _field("a blank doubled", "Title__c", 38, lambda text: text.replace(" ", "  ", 1)),
    _field("a blank turned into a hard one", "Title__c", 39, lambda text: text.replace(" ", "\u00a0", 1)),
    _field("a line end lost", "Note__c", 40, lambda text: text.replace("\n", " ")),
    _field("accents taken apart (NFD)", "Title__c", 41, lambda text: unicodedata.normalize("NFD", text)),
    _field("an accent lost", "Title__c", 43, lambda text: text.replace("ï", "i")),
    _field("a Thai tone mark lost", "Title__c", 44, lambda text: text.replace("้", "")),
    _field("Thai turned into question marks", "Title__c", 45, lambda text: text.replace("ร้านกาแฟ", "????????")),
    _field("an emoji lost", "Note__c", 46, lambda text: text.replace("😀", "")),
    _field("a Cyrillic letter in a Latin word", "Mail__c", 47, lambda text: text.replace("buyer", "buуer")),
    _field("a zero-width character", "Title__c", 48, lambda text: text[:4] + "\u200b" + text[4:]),
    _field("a straight quote turned curly", "Note__c", 50, lambda text: text.replace("'", "’")),
    _field("quotes escaped twice", "Note__c", 51, lambda text: text.replace('"', '""')),
    _field("HTML written for a character", "Note__c", 52, lambda text: text.replace('"', "&quot;")),
    _field("a mail address in another case", "Mail__c", 53, lambda text: text.replace("b", "B", 1)),
    _field("a telephone number without its blanks", "Phone__c", 54, lambda text: text.replace(" ", "")),
    _field("a slash after an address", "Web__c", 55, lambda text: text + "/"),
    # Numbers
    _field("one cent", "Amount__c", 57, lambda number: number + 0.01),
    Damage("a cent moved to another record", _moved),
    _field("a lost sign", "Amount__c", 58, lambda number: -number),
    _field("a null turned zero", "Amount__c", 66, lambda number: 0),
    _field("a zero turned null", "Pieces__c", 97, lambda number: None),
    _field("an amount turned null", "Amount__c", 59, lambda number: None),
    _field("an amount a hundred times as large", "Amount__c", 60, lambda number: number * 100),
    _field("an amount rounded to whole units", "Amount__c", 61, lambda number: float(round(number)) + 0.0),
    _field("the last decimal lost", "Rate__c", 62, lambda number: round(number, 5)),
    _field("a percentage as a share", "Share__c", 63, lambda number: round(number / 100, 2)),
    _field("one piece more", "Pieces__c", 64, lambda number: number + 1),
    # Dates and times
    _field("the next day", "Sold_On__c", 67, lambda day: (date.fromisoformat(day) + timedelta(days=1)).isoformat()),
    _field("a Buddhist year", "Sold_On__c", 68, _year_of_buddha),
    _field("a date turned null", "Sold_On__c", 69, lambda day: None),
    _field("a null turned into a date", "Sold_On__c", 65, lambda day: "1900-01-01"),
    _field("a shifted time zone", "Sold_At__c", 70, _shifted(hours=-7)),
    _field("an hour of summer time", "Sold_At__c", 71, _shifted(hours=1)),
    _field("one second", "Sold_At__c", 72, _shifted(seconds=1)),
    # Yes or no, lists
    _field("a yes turned no", "Paid__c", 75, lambda value: not value),
    _field("another value of a list", "Status__c", 76, lambda value: "Void"),
    _field("a value of several lost", "Tags__c", 77, lambda value: "a"),
    # Lookups
    _lookup("a swapped lookup", "Shop__c", 80, lambda world: world.shop_id(1), "Shop__r.Code__c"),
    _lookup("a lookup emptied", "Second__c", 82, lambda world: None, "Second__r.Code__c"),
    _lookup("an empty lookup filled", "Second__c", 83, lambda world: world.shop_id(2), "Second__r.Code__c"),
    _lookup("a link to itself", "Up__c", 86, lambda world: str(world.sale(86)["Id"]), "Up__r.Key__c"),
)

SMALL = (
    "a lost record",
    "an extra record",
    "one cent",
    "a changed case",
    "a swapped lookup",
    "a shifted time zone",
)
"""The kinds that run with every change of the code."""
