"""The page of a report in Chromium: opened from a file, in both languages and schemes, and printed, without a request.

Set FORCELIFT_SHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pypdfium2
import pytest
from tests.browser.chromium import browse, needs_chromium
from tests.unit.report_fixtures import HOSTILE, content

from forcelift.after.report import Language, Words, html_page

pytestmark = needs_chromium
THAI = Words(Language.THAI, buddhist_era=True)


def write(folder: Path, words: Words, project: str = "KPC TMS Data Migration") -> Path:
    page = folder / "report.html"
    page.write_text(html_page(content(project), words), encoding="utf-8")
    return page


@pytest.mark.parametrize(("scheme", "setting", "words"), [("light", "1", Words()), ("dark", "0", THAI)])
def test_it_opens_without_a_request(tmp_path: Path, scheme: str, setting: str, words: Words) -> None:
    shots = Path(os.environ.get("FORCELIFT_SHOTS") or tmp_path)
    shot = shots / f"report-{scheme}-{words.language}.png"
    arguments = (f"--blink-settings=preferredColorScheme={setting}", f"--screenshot={shot}")
    _, urls = browse(write(tmp_path, words), tmp_path, *arguments)
    assert urls == []
    assert shot.stat().st_size > 60_000  # an empty page takes a tenth of it


def test_hostile_values_are_text_in_the_browser_too(tmp_path: Path) -> None:
    shown, urls = browse(write(tmp_path, Words(), HOSTILE), tmp_path, "--dump-dom")
    assert urls == []
    assert not re.search(r"<script|<img|\son\w+=", shown)
    assert "&lt;script&gt;alert(1)" in shown
    assert "ผู้ป่วย" in shown


def test_it_prints_on_paper(tmp_path: Path) -> None:
    printed = tmp_path / "printed.pdf"
    browse(write(tmp_path, Words()), tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    document = pypdfium2.PdfDocument(printed)
    text = "\n".join(page.get_textpage().get_text_range() for page in document)
    assert 2 <= len(document) <= 9
    for word in ("480,995,432", "STRING_TOO_LONG", "Business Owner"):
        assert word in text
