"""The report's words: none is missing in either language, and each language writes numbers and days in its way."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forcelift.after.report.steps import Step
from forcelift.after.report.words import Language, Words, catalogue, thai
from forcelift.rules.findings import NO_ZONE, SENTENCES, SKIPPED_TIME
from forcelift.rules.remedies import REMEDIES
from forcelift.salesforce import catalogue as salesforce

FOLDER = Path(__file__).resolve().parents[2] / "src/forcelift/after/report"
THAI = Words(Language.THAI)
MOMENT = datetime(2024, 1, 5, 7, 8, 9, tzinfo=UTC)


def _figures(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("key", sorted(catalogue()))
def test_each_key_says_the_same_in_both_languages(key: str) -> None:
    said = catalogue()[key]
    assert set(said) == {"en", "th"}
    assert said["en"].strip()
    assert said["th"].strip()
    assert _figures(said["en"]) == _figures(said["th"])


def test_thai_is_thai() -> None:
    """But for what is a figure or a name in both."""
    same = [key for key, said in catalogue().items() if not re.search("[ก-๙]", said["th"])]
    assert same == ["as_told", "quota_of"] or set(same) <= {"as_told", "quota_of"}


def test_every_key_that_is_used_is_there_and_every_key_is_used() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py")))
    code += (FOLDER.parents[1] / "handover" / "reporting.py").read_text(encoding="utf-8")
    asked = set(re.findall(r'(?:words\(|self\(|key=|Words\(\)\()\s*f?"([a-z][a-z_0-9]*)"', code))
    assert asked - set(catalogue()) == set()
    mentioned = set(re.findall(r"[\"']([a-z][a-z_0-9]*)[\"']", code))
    made = {f"step_{one}" for one in Step} | {f"level_{one}" for one in range(1, 6)}
    made |= {f"checks_{one}" for one in ("passed", "failed", "drift", "open")} | {"hours_1", "minutes_1", "seconds_1"}
    assert set(catalogue()) - mentioned - made == set()


def test_what_rules_say_is_said_in_thai() -> None:
    for sentence in [*SENTENCES.values(), *REMEDIES.values(), SKIPPED_TIME, NO_ZONE]:
        assert re.search("[ก-๙]", THAI.told(sentence)), sentence
    assert THAI.told("dest: is negative (dest)") == "dest: มีค่าติดลบ (dest)"
    both = THAI.told("A: is negative; B: is empty")
    assert both == "A: มีค่าติดลบ; B: ไม่มีค่า"


def test_what_others_say_stays_as_it_is() -> None:
    said = "STRING_TOO_LONG: Description: data value too large"
    assert THAI.told(said) == said
    assert Words().told("is negative") == "is negative"


def test_figures_of_a_phrase_are_carried_over() -> None:
    assert THAI.told("sum of Amount__c") == "ผลรวมของ Amount__c"
    told = THAI.told("beside them 12 written by other batches or not accepted, 3 others'")
    assert re.findall(r"\d+", told) == ["12", "3"]


def test_remedies_in_thai() -> None:
    assert set(thai()["remedies"]) <= {entry.advice.code for entry in salesforce.entries()}
    assert "truncate" in THAI.remedy("STRING_TOO_LONG", "Set it.")
    assert "forcelift explain SOME_CODE" in THAI.remedy("SOME_CODE", "Do this.")
    assert Words().remedy("SOME_CODE", "Do this.") == "Do this."


def test_every_entry_of_the_catalogue_has_a_remedy_in_thai_for_its_own_cause() -> None:
    said: dict[tuple[str, str], str] = {}
    for entry in salesforce.entries():
        code, english = entry.advice.code, entry.advice.remedy
        remedy = THAI.remedy(code, english)
        assert re.search("[ก-๙]", remedy), entry.advice.title
        assert remedy != THAI("remedy_unknown", code=code), entry.advice.title
        # What a person types stands in both.
        typed = set(re.findall("`(forcelift [a-z]+)", remedy))
        assert typed <= set(re.findall("`(forcelift [a-z]+)", english)) | {"forcelift prepare"}, entry.advice.title
        said[code, english] = remedy
    for (code, english), remedy in said.items():
        others = [th for (other, text), th in said.items() if other == code and text != english]
        assert remedy not in others, f"{code}: two causes, one remedy"


def test_a_parent_that_is_missing_is_not_told_as_a_wrong_field_name() -> None:
    missing = salesforce.remedy("INVALID_FIELD", "Foreign key external ID: 7 not found for field X__c in entity Y__c")
    assert "missing_parent" in THAI.remedy("INVALID_FIELD", missing.remedy)
    quota = salesforce.remedy("LIMIT_EXCEEDED", "")
    assert "forcelift status" in THAI.remedy("LIMIT_EXCEEDED", quota.remedy)
    assert "200" in THAI.remedy("LIMIT_EXCEEDED", salesforce.remedy("LIMIT_EXCEEDED", "Too many SOQL queries").remedy)


def test_numbers_have_separators() -> None:
    assert Words()("headline", target=480_995_432, source=481_000_000).startswith("480,995,432 of 481,000,000 ")
    assert "480,995,432" in THAI("headline", target=480_995_432, source=481_000_000)


@pytest.mark.parametrize(
    ("words", "day", "moment"),
    [
        (Words(), "2024-01-05", "2024-01-05 07:08:09"),
        (Words(Language.THAI), "5 มกราคม 2024", "5 ม.ค. 2024 07:08:09"),
        (Words(Language.THAI, buddhist_era=True), "5 มกราคม 2567", "5 ม.ค. 2567 07:08:09"),
        (Words(buddhist_era=True), "2024-01-05", "2024-01-05 07:08:09"),
    ],
)
def test_days(words: Words, day: str, moment: str) -> None:
    assert words.date(MOMENT) == day
    assert words.moment(MOMENT) == moment
    assert words.moment(None) == "-"


def test_leap_day_of_the_buddhist_era() -> None:
    """2567 is a leap year of neither calendar's arithmetic; the day is the one of 2024 all the same."""
    assert Words(Language.THAI, buddhist_era=True).date(datetime(2024, 2, 29, tzinfo=UTC)) == "29 กุมภาพันธ์ 2567"


@pytest.mark.parametrize(
    ("seconds", "english", "said"),
    [
        (166_980, "46 hours 23 minutes", "46 ชั่วโมง 23 นาที"),
        (3_600, "1 hour 0 minutes", "1 ชั่วโมง 0 นาที"),
        (61, "1 minute 1 second", "1 นาที 1 วินาที"),
        (0, "0 seconds", "0 วินาที"),
    ],
)
def test_lengths_of_time(seconds: float, english: str, said: str) -> None:
    assert Words().duration(seconds) == english
    assert THAI.duration(seconds) == said
