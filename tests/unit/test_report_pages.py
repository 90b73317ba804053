"""The pages of a report with everything in it: what stands where, and that no value breaks out of its place."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from io import BytesIO

import pypdfium2
import pytest
from tests.unit.report_fixtures import HOSTILE, ROLES, content

from forcelift.after.report import Content, Language, Words, html_page, markdown, pdf_page
from forcelift.after.report.html_plots import area, short, stacked, ticks
from forcelift.errors import UsageError

THAI = Words(Language.THAI, buddhist_era=True)
SECTIONS = ["statistics", "reconciliation", "issues", "performance", "sign_off"]


class _Reader(HTMLParser):
    """Tags that are open, all that were seen, and the text of headings."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[str] = []
        self.headings: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag == "h2":
            self.headings.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data
        if "style" not in self.open:
            self.text.append(data)


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def pdf_text(document: bytes) -> list[str]:
    pages = pypdfium2.PdfDocument(BytesIO(document))
    return [page.get_textpage().get_text_range() for page in pages]


@pytest.mark.parametrize("words", [Words(), THAI])
def test_the_page_has_the_templates_sections_in_order(words: Words) -> None:
    page = read(html_page(content(), words))
    assert page.headings[: len(SECTIONS)] == [words(key) for key in SECTIONS]
    assert page.headings[len(SECTIONS) :] == [words("rollbacks"), words("in_full")]
    text = " ".join(page.text)
    for figure in ("481,000,000", "480,995,432", "99.999%", "12,847", words.duration(46 * 3600)):
        assert figure in text
    for role in ROLES:
        assert role in text
    assert ("lang", words.language.value) in page.attributes


@pytest.mark.parametrize("words", [Words(), THAI])
def test_nothing_of_a_value_is_markup(words: Words) -> None:
    page = html_page(content(HOSTILE), words)
    reader = read(page)
    assert "script" not in reader.seen
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert not [value for name, value in reader.attributes if name in ("src", "href") and value != "data:,"]
    assert "alert(1)" in " ".join(reader.text)
    assert "url(" not in page
    assert "@import" not in page
    # The page of a harmless report has the same elements: no value made one.
    harmless = read(html_page(content("x `y` z"), words))
    assert reader.seen == harmless.seen


def test_every_plot_says_what_it_shows() -> None:
    page = html_page(content())
    plots = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert len(plots) >= 12
    assert all(plots)
    bare = re.findall(r"<svg(?![^>]*(?:aria-label|aria-hidden))[^>]*>", page)
    # The two over time stand inside an element that is named.
    assert len(bare) == page.count('class="field" aria-hidden="true"') == 2


def test_alarms_come_first_and_say_what_to_do() -> None:
    page = html_page(content())
    assert page.index('role="alert"') < page.index("<header")
    text = " ".join(read(page).text)
    assert "2 automations are still switched off" in text
    assert "Rule, since 2024-01-15 12:00:00 UTC by you@host:8" in text
    assert "Rule, since 2024-01-15 12:00:00 UTC by you@host:8" in markdown(content())
    assert "by you@host:8" in " ".join(pdf_text(pdf_page(content()))[0].split())
    assert "has changed since QA signed off" in text
    assert "stale: the batch was rolled back" in text
    quiet = html_page(content(switched_off=(), signed=()))
    assert 'role="alert"' not in quiet
    assert markdown(content()).index("switched off") < markdown(content()).index("Executive Summary")
    assert "switched off" in pdf_text(pdf_page(content()))[0]


def test_who_signed_stands_beside_the_role() -> None:
    rows = {line.split("|")[1].strip(): line for line in markdown(content()).splitlines() if line.startswith("| ")}
    assert "| KPC TMS Data Migration | 2024-01-15 12:00:00 | checked |" in rows["DBA"]
    assert "**stale: the batch was rolled back**" in rows["QA Lead"]
    assert rows["Data Engineer"] == "| Data Engineer |  |  |  |"


def test_what_was_fixed_is_told_from_what_is_open() -> None:
    text = markdown(content())
    first, second = text.split("2. **Issue:**")
    assert "**Resolution:** Cut at 32 kB" in first
    assert "**Records Fixed:** 4,000" in first
    assert "**Resolution:** open: Cut it." in second
    assert "4,000 · all fixed" in html_page(content())
    assert "568 · none fixed yet" in html_page(content())


@pytest.mark.parametrize("words", [Words(), THAI])
def test_markdown_tables_keep_their_columns(words: Words) -> None:
    text = markdown(content(HOSTILE), words)
    columns = 0
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line))
        if line.startswith("|"):
            columns = columns or cells
            assert cells == columns, line
        else:
            columns = 0
    assert not re.search(r"(?<!\\)<script", text)
    assert "\\<script" in text


@pytest.mark.parametrize("words", [Words(), THAI])
def test_the_pdf_says_the_same(words: Words) -> None:
    pages = pdf_text(pdf_page(content(), words))
    whole = "\n".join(pages)
    for figure in ("481,000,000", "480,995,432", "99.999%", "12,847"):
        assert figure in whole
    places = [whole.index(words(key)) for key in SECTIONS if words.language is Language.ENGLISH]
    assert places == sorted(places)
    for number, page in enumerate(pages, start=1):
        assert f"{number}" in page
        assert "ab" * 32 in page.replace("\r\n", "")
    if words.language is Language.ENGLISH:
        assert f"Page 1 of {len(pages)}" in pages[0]
    else:
        assert "2567" in whole
        assert "มกราคม" in whole


def test_nothing_of_a_value_is_typeset_as_a_command() -> None:
    whole = "\n".join(pdf_text(pdf_page(content(HOSTILE))))
    assert "#set page(fill: red)" in whole
    assert "<script>" in whole


def test_a_headings_row_comes_again_on_each_page() -> None:
    checks = content().figures.checks * 120
    figures = content().figures
    many = type(figures)(**{**{name: getattr(figures, name) for name in figures.__struct_fields__}, "checks": checks})
    pages = pdf_text(pdf_page(Content(figures=many)))
    with_rows = [page for page in pages if "records made and" in page]
    assert len(with_rows) >= 3
    assert all("Level" in page and "Reason" in page for page in with_rows)


def test_the_same_report_gives_the_same_bytes() -> None:
    for words in (Words(), THAI):
        assert pdf_page(content(), words) == pdf_page(content(), words)
        assert html_page(content(), words) == html_page(content(), words)


def test_the_fonts_of_the_pdf_are_its_own() -> None:
    names = set(re.findall(rb"/FontName\s*/(?:[A-Z]{6}\+)?([A-Za-z-]+)", _objects(pdf_page(content(), THAI))))
    assert names <= {b"Sarabun-Regular", b"Sarabun-SemiBold", b"DejaVuSansMono", b"DejaVuSansMono-Bold"}
    assert b"Sarabun-Regular" in names


def _objects(document: bytes) -> bytes:
    """The document with its packed objects laid open."""
    import zlib

    found = [document]
    for packed in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", document, re.DOTALL):
        try:
            found.append(zlib.decompress(packed))
        except zlib.error:
            continue
    return b"\n".join(found)


def test_without_typst_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(UsageError) as caught:
        pdf_page(content())
    assert "forcelift[pdf]" in str(caught.value.hint)


def test_letters_that_no_font_has_stop_nothing() -> None:
    assert "日本" in html_page(content("日本 🎉"))
    assert pdf_text(pdf_page(content("日本 🎉")))


def test_a_report_of_nothing_can_be_written() -> None:
    figures = content().figures
    empty = type(figures)(
        **{
            **{name: getattr(figures, name) for name in figures.__struct_fields__},
            "tables": (), "checks": (), "issues": (), "rollbacks": (), "roles": (), "notes": (),
        }
    )  # fmt: skip
    bare = Content(figures=empty)
    for words in (Words(), THAI):
        assert words("no_issues") in html_page(bare, words)
        assert words("no_issues") in markdown(bare, words)
        assert pdf_text(pdf_page(bare, words))


@pytest.mark.parametrize(
    ("most", "last", "count"), [(0, 1, 2), (3, 3, 4), (44_771, 60_000, 4), (481e6, 600e6, 4), (9.5, 10, 5)]
)
def test_ticks_are_round_and_reach_the_most(most: float, last: float, count: int) -> None:
    found = ticks(most)
    assert found[-1] >= most
    assert len(found) <= 7
    assert (found[-1], len(found)) == (last, count)


def test_short_figures() -> None:
    assert [short(one) for one in (0, 750, 1500, 20e6, 2.5e9)] == ["0", "750", "1.5 k", "20 M", "2.5 G"]


def test_a_single_row_among_millions_is_seen() -> None:
    bar = stacked([("good", 480_999_999.0, "a"), ("bad", 1.0, "b")], whole=481_000_000, label="x")
    widths = [float(one) for one in re.findall(r'class="(?:good|bad)" x="[\d.]+" y="0" width="([\d.]+)"', bar)]
    assert len(widths) == 2
    assert widths[1] > 0.1
    assert sum(widths) <= 100


def test_a_plot_stays_in_its_frame() -> None:
    plot = area([1.0, 5.0, 2.0], label="x", kind="rate", edges=("a", "b"), line=(3.0, "average"))
    heights = [float(y) for path in re.findall(r' d="([^"]+)"', plot) for y in re.findall(r"[\d.]+ ([\d.]+)", path)]
    assert heights
    assert all(0 <= y <= 180 for y in heights)
