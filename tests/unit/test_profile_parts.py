"""The parts of a profile by themselves: sketch, figures, oddities, circles, lists for people, slices, page."""

from __future__ import annotations

import random
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from forcelift.before.profile import circles
from forcelift.before.profile.oddities import EraCount, personal_signs, text_oddities
from forcelift.before.profile.page import html_page
from forcelift.before.profile.records import Acceptance, Action, Example, Finding, Profile, TableProfile
from forcelift.before.profile.single_keys import do_rise
from forcelift.before.profile.sink import FindingSink
from forcelift.before.profile.sketch import SIZE, DistinctSketch
from forcelift.before.profile.slices import even
from forcelift.before.profile.statistics import SAMPLE_ROWS, ColumnStatistics
from forcelift.protocols.source import Column, ColumnKind
from forcelift.rules.texts import TextLook

NOW = datetime(2026, 6, 30, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("distinct", [0, 1, 4_000, 20_000, 300_000])
@pytest.mark.parametrize("kind", ["integer", "text", "decimal", "day"])
def test_the_sketch_is_near_and_exact_below_its_size(distinct: int, kind: str) -> None:
    numbers = pl.int_range(distinct, eager=True)
    values = {
        "integer": numbers * 7,
        "text": "K" + numbers.cast(pl.String),
        "decimal": (numbers.cast(pl.Decimal(18, 2)) / 100).cast(pl.Decimal(18, 2)),
        "day": (numbers % 90_000).cast(pl.Int32).cast(pl.Date),
    }[kind]
    sketch = DistinctSketch()
    for part in (values, values.head(100), pl.Series([None, None], dtype=values.dtype), values):
        sketch.add(part)
    really = values.n_unique() if distinct else 0
    if really < SIZE:
        assert (sketch.distinct, sketch.is_exact) == (really, True)
    else:
        assert not sketch.is_exact
        assert sketch.distinct == pytest.approx(really, rel=0.06)  # four standard errors


def statistics(
    kind: ColumnKind, arrow: pa.DataType, *, is_personal: bool = False, words: tuple[str, ...] = ()
) -> ColumnStatistics:
    source = Column(name="IT", kind=kind, declared="IT", arrow=arrow)
    return ColumnStatistics(source, rules=None, target=None, is_personal=is_personal, is_classified=True, words=words)


def test_figures_of_numbers() -> None:
    figures = statistics(ColumnKind.DECIMAL, pa.decimal128(10, 2))
    figures.add(pl.Series([Decimal("1.50"), None, Decimal("-2.00")], dtype=pl.Decimal(10, 2)))
    figures.add(pl.Series([Decimal("10.00"), None], dtype=pl.Decimal(10, 2)))
    found = figures.profile()
    assert (found.nulls, found.distinct, found.least, found.most) == (2, 3, "-2.00", "10.00")
    assert found.average == pytest.approx(9.5 / 3)
    assert found.values is not None
    assert sum(bar.rows for bar in found.values.bars) == 3
    assert not found.values.is_sample
    assert found.lengths is None


def test_figures_of_a_column_without_values() -> None:
    for values in (pl.Series([], dtype=pl.String), pl.Series([None, None], dtype=pl.String)):
        figures = statistics(ColumnKind.TEXT, pa.string())
        figures.add(values)
        found = figures.profile()
        assert (found.nulls, found.distinct, found.least, found.longest) == (values.len(), 0, None, None)
        assert (found.top, found.values, found.lengths, found.average_length) == ((), None, None, None)


def test_figures_of_many_rows_are_of_a_bounded_sample_and_say_so() -> None:
    figures = statistics(ColumnKind.INTEGER, pa.int64())
    rows = 10 * SAMPLE_ROWS
    for start in range(0, rows, 10_000):
        figures.add(pl.int_range(start, start + 10_000, eager=True))
    found = figures.profile()
    assert found.values is not None
    assert found.values.is_sample
    assert SAMPLE_ROWS / 3 < found.values.rows <= SAMPLE_ROWS
    assert found.top_of == found.values.rows
    # Taken evenly: no bar of an even column is far from its share.
    share = found.values.rows / len(found.values.bars)
    assert all(abs(bar.rows - share) < 0.2 * share for bar in found.values.bars)
    assert (found.least, found.most, found.average) == ("0", str(rows - 1), (rows - 1) / 2)


def test_personal_values_are_masked_but_for_words_that_the_plan_names() -> None:
    figures = statistics(ColumnKind.TEXT, pa.string(), is_personal=True, words=("Open",))
    figures.add(pl.Series(["Open", "Open", "สมชาย"]))
    found = figures.profile()
    assert [(one.value, one.rows) for one in found.top] == [("Open", 2), ("***", 1)]
    assert (found.least, found.most, found.longest) == (None, None, 5)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("plain", []), ("ภาษาไทย น้ำ", []), ("café déjà", []), ("Grüße aus Köln", []), ("naïve “quote” – dash…", []),
        ("Ελληνικά", []), ("日本語", []), ("100 € §5 ½", []),
        ("cafÃ©", ["mojibake"]), ("â€œquoteâ€\x9d", ["mojibake"]), ("à¸ªà¸§à¸±à¸ªà¸”à¸µ", ["mojibake"]),
        ("ÊÇÑÊ´Õ", ["mojibake"]),
        ("lost \ufffd", ["replacement_character"]), ("zero\u200bwidth", ["special_characters"]),
        ("soft\u00adhyphen", ["special_characters"]), ("mark\u061c", ["special_characters"]),
        ("own\ue000", ["special_characters"]),
    ],
)  # fmt: skip
def test_what_looks_odd_in_a_text(text: str, kinds: list[str]) -> None:
    found = text_oddities(TextLook(pl.Series(["x", text, None])), pl.Series(dtype=pl.UInt32))
    assert [(kind, rows.to_list()) for kind, rows in found] == [(kind, [1]) for kind in kinds]


def test_our_own_replacement_characters_are_not_told_twice() -> None:
    values = pl.Series(["a\ufffd", "b\ufffd"])
    found = dict(text_oddities(TextLook(values), pl.Series([0], dtype=pl.UInt32)))
    assert found["replacement_character"].to_list() == [1]


def test_calendars_side_by_side() -> None:
    typed, texts = EraCount(), EraCount()
    days = [date(2567, 5, 5), date(2024, 5, 5), date(1650, 1, 1), None]
    typed.add(pl.Series(days))
    texts.add(pl.Series([None if day is None else day.isoformat() for day in days]))
    for eras in (typed, texts):
        assert (eras.buddhist, eras.common, eras.is_mixed) == (1, 1, True)
    alone = EraCount()
    alone.add(pl.Series([date(2567, 5, 5)]))
    assert not alone.is_mixed


@pytest.mark.parametrize(
    ("name", "values", "sign"),
    [
        ("NOTE", ["hello", "world"], None),
        ("X", ["a@b.co", "c@d.org", None], "values look like e-mail addresses"),
        ("X", ["081-234-5678", "+66 81 234 5678"], "values look like telephone numbers"),
        ("X", ["4111111111111111", "5500005555555559"], "values look like card numbers"),
        ("X", ["4111111111111112", "5500005555555551"], None),
        ("RECEIPT_NO", ["R0000123"], None),
        ("CUSTOMER_NAME", ["x"], "the column's name says so"),
        ("BIRTH_DATE", [], "the column's name says so"),
    ],
)
def test_what_looks_personal(name: str, values: list[str | None], sign: str | None) -> None:
    found = personal_signs(name, pl.Series(values, dtype=pl.String))
    assert (found[0] if found else None) == sign


def test_thai_identity_numbers_are_known_by_their_check_digit() -> None:
    first = [1, 1, 0, 1, 7, 0, 0, 2, 3, 0, 7, 0]
    check = (11 - sum(digit * (13 - place) for place, digit in enumerate(first)) % 11) % 10
    number = "".join(map(str, [*first, check]))
    assert personal_signs("X", pl.Series([number])) == ("values look like national identity numbers", 1.0)
    assert personal_signs("X", pl.Series([int(number)])) == ("values look like national identity numbers", 1.0)
    assert personal_signs("X", pl.Series([number[:-1] + str((check + 1) % 10)])) is None


@pytest.mark.parametrize("seed", range(8))
def test_circles_are_found_whatever_leads_to_them(seed: int) -> None:
    """Against a walk from each node of a random graph of one successor, with long chains."""
    rng = random.Random(seed)
    nodes = 300
    following = {node: rng.choice([node - 1, rng.randrange(nodes), rng.randrange(nodes)]) for node in range(1, nodes)}
    wanted = set()
    for node in following:
        seen, place = [], node
        while place in following and place not in seen:
            seen.append(place)
            place = following[place]
        if place in seen:
            wanted |= set(seen[seen.index(place) :])
    found = circles_of(following)
    assert found == wanted, seed


def test_a_chain_as_long_as_the_table_has_no_circle() -> None:
    assert circles_of({node: node + 1 for node in range(5_000)}) == set()
    assert circles_of({node: (node + 1) % 5_000 for node in range(5_000)}) == set(range(5_000))


def circles_of(following: dict[int, int]) -> set[int]:
    """The keys in circles, by the class itself over edges that are put into its table."""
    made = circles.Circles({}, Path(":memory:"), memory_mb=128)
    made._lookups = {"t": [_Info()]}  # type: ignore[list-item]  # only the names are looked at
    frame = pl.DataFrame(
        {"place": "t", "col": "c", "node": list(following), "next": list(following.values())}
    ).with_columns(key=pl.col("node").cast(pl.String))
    made._database.register("edges", frame.to_arrow())
    made._database.execute("INSERT INTO edge SELECT place, col, node, next, key FROM edges")
    found = made.find(keys_max=3)
    keys = {int(key) for circle in found for page in made.keys_of(circle) for key in page}
    assert sum(circle.rows for circle in found) == len(keys)
    made.close()
    return keys


class _Info:
    column = "c"
    parent_table = "t"


def test_lists_for_people_hold_all_keys_and_no_formulas(tmp_path: Path) -> None:
    sink = FindingSink("t/1", personal=frozenset({"NAME"}), folder=tmp_path)
    keys = pl.Series(["=1+1", "+2", "-3", "@x", "plain", None, "\tx"])
    sink.add("too_long", "NOTE", Action.REJECTED, keys, keys)
    sink.add("too_long", "NOTE", Action.REJECTED, pl.Series(["last"]), pl.Series(['a "quote", and more']))
    sink.add("too_long", "NAME", Action.REJECTED, pl.Series(["k"]), pl.Series(["secret"]))
    note = (tmp_path / "t_1.NOTE.too_long.csv").read_text(encoding="utf-8-sig")
    assert note.splitlines()[:5] == ["key,value", "'=1+1,'=1+1", "'+2,'+2", "'-3,'-3", "'@x,'@x"]
    assert note.splitlines()[-1] == 'last,"a ""quote"", and more"'
    assert note.count("key,value") == 1
    assert "secret" not in (tmp_path / "t_1.NAME.too_long.csv").read_text(encoding="utf-8-sig")
    found = sink.found["too_long", "NOTE", Action.REJECTED]
    assert (found.rows, len(found.examples)) == (8, 5)
    assert sink.found["too_long", "NAME", Action.REJECTED].examples == [Example(key="k", value="***")]


@pytest.mark.parametrize(("slices", "percent", "wanted"), [(400, "1", 4), (400, "50", 200), (3, "1", 1), (1, "1", 1)])
def test_slices_of_a_sample_are_even(slices: int, percent: str, wanted: int) -> None:
    chosen = even(slices, Decimal(percent))
    assert len(chosen) == wanted
    gaps = {later - earlier for earlier, later in pairwise(chosen)}
    assert len(gaps) <= 1


def finding(**more: object) -> Finding:
    return Finding(
        **{
            "table": "t", "column": "C", "field": None, "kind": "negative", "action": Action.WARNED, "rows": 10,
            "decides": 0, "what": "is negative", "outcome": "sent", "remedy": "Ask `the` business.", **more,
        }  # type: ignore[arg-type]
    )  # fmt: skip


def test_an_accepted_finding_is_open_again_when_it_has_grown() -> None:
    accepted = Acceptance(by="QA", reason="refunds", rows=10, at=NOW)
    assert finding().is_open
    assert not finding(accepted=accepted).is_open
    assert not finding(accepted=accepted, rows=9).is_open
    assert finding(accepted=accepted, rows=11).is_open
    assert not finding(action=Action.CHANGED).is_open


def test_the_page_escapes_what_stands_in_the_data_and_fetches_nothing() -> None:
    hostile = '"><script>alert(1)</script><img src=http://x/y>'
    shown = finding(column=hostile, examples=(Example(key=hostile, value=hostile),), facts=(("sign", hostile),))
    table = TableProfile(
        table=hostile, object=hostile, key=(hostile,), rows=0, rows_estimate=None, sample=hostile, null_keys=0,
        counted=hostile, distinct_keys=0, repeated_keys=0, copies_equal=0, copies_by_rule=0, to_send=0, rejected=0,
        dropped=0, failed=0,
        rejected_by=(), columns=(), findings=(shown,), fingerprint="", seconds=0.0,
    )  # fmt: skip
    profile = Profile(
        profile_id="profile-1", project=hostile, plan_sha256="", org_id="", source_kind="sqlite", snapshot=None,
        as_of=NOW, sample_percent="1", taken_at=NOW, taken_by="", tables=(table,),
    )  # fmt: skip
    page = html_page(profile)
    assert "<script" not in page
    assert "<img" not in page
    assert re.findall(r"""<[^>]*\b(?:src|href)\s*=\s*["']?([^"'>\s]*)""", page) == ["data:,"]
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize(
    ("frames", "rises"),
    [
        ([[1, 2, 5], [6, 7]], True),
        ([[1, 2], [], [3]], True),
        ([], True),
        ([[1, 2, 2]], False),
        ([[1, 2], [2]], False),
        ([[3, 2]], False),
        ([[1, None, 2]], False),
        ([[-(2**63), 2**63 - 1]], True),
        ([["1", "2"]], False),
    ],
)
def test_keys_that_rise_do_not_repeat(frames: list[list[int | str | None]], rises: bool) -> None:
    given = (
        pl.DataFrame({"k": pl.Series(part, dtype=pl.String if isinstance((part or [0])[0], str) else pl.Int64)})
        for part in frames
    )
    assert do_rise("k", given) == rises
