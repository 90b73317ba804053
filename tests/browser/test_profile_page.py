"""The page of a profile in Chromium: opened from a file, in light and dark, without a single network request.

Chromium is driven by its own command line and tells its requests in a log of its network, each with who began it: a
page, or Chromium on its own account (`not an origin`), which is none of ours. All go to a proxy of the test, so that
nothing leaves the machine. Set FORCELIFT_SHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.profile_defects import make_project

from forcelift.profiling import profile_plan, write_page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--window-size=1200,2400",
    "--virtual-time-budget=4000",
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: `chromium`)")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a table with every defect, Thai text among it."""
    folder = tmp_path_factory.mktemp("page")
    project = make_project(folder, "parquet")
    write_page(profile_plan(project.plan), folder / "profile.html")
    return folder / "profile.html"


@contextmanager
def deaf_proxy() -> Iterator[int]:
    """The port of a proxy that gives nothing."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def browse(page: Path, folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """Open a page. Gives stdout, and the URLs that the page asked for."""
    assert CHROMIUM is not None
    log = folder / "net.json"
    with deaf_proxy() as port:
        done = subprocess.run(
            [
                CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}",
                f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>", *arguments, page.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, requested(log)


def requested(log: Path) -> list[str]:
    """URLs of all requests that went further than a file or the page's own data."""
    document: dict[str, Any] = json.loads(log.read_text(encoding="utf-8"))
    begun = [event["params"] for event in document["events"] if "initiator" in event.get("params", {})]
    urls = {str(one["url"]) for one in begun if one["initiator"] != "not an origin"}
    return sorted(url for url in urls if not url.startswith(("file:", "data:")))


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
