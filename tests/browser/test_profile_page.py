"""The page of a profile in Chromium: opened from a file, in light and dark, without a single network request.

Set FORCELIFT_SHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.browser.chromium import browse, needs_chromium
from tests.integration.profile_defects import make_project

from forcelift.preflight.profiling import profile_plan, write_page

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a table with every defect, Thai text among it."""
    folder = tmp_path_factory.mktemp("page")
    project = make_project(folder, "parquet")
    write_page(profile_plan(project.plan), folder / "profile.html")
    return folder / "profile.html"


def test_a_page_that_asks_for_something_is_noticed(tmp_path: Path) -> None:
    """Otherwise the test below would prove nothing."""
    page = tmp_path / "asks.html"
    page.write_text('<img src="http://example.com/pixel.png"><p>x</p>', encoding="utf-8")
    _, urls = browse(page, tmp_path, "--dump-dom")
    assert urls == ["http://example.com/pixel.png"]


@pytest.mark.parametrize(("scheme", "setting"), [("light", "1"), ("dark", "0")])
def test_it_opens_without_a_request(page: Path, tmp_path: Path, scheme: str, setting: str) -> None:
    shots = Path(os.environ.get("FORCELIFT_SHOTS") or tmp_path)
    shot = shots / f"profile-{scheme}.png"
    arguments = (f"--blink-settings=preferredColorScheme={setting}", f"--screenshot={shot}")
    _, urls = browse(page, tmp_path, *arguments)
    assert urls == []
    assert shot.stat().st_size > 50_000  # an empty page takes a tenth of it


def test_what_it_shows(page: Path, tmp_path: Path) -> None:
    """The document as Chromium understood it: every table, Thai text, plots, and nothing that runs."""
    shown, urls = browse(page, tmp_path, "--dump-dom")
    assert urls == []
    for text in ("สุวรรณภูมิ", "sales → Sale__c", "REJECTED_PICKLIST", "copies dropped", "***"):
        assert text in shown
    assert shown.count("<svg") >= 12
    assert "<script" not in shown
    assert "ร้านค้า" not in shown  # of a personal column
