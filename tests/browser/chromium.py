"""Chromium for tests: driven by its own command line; it tells its requests in a log of its network.

Each request says who began it: a page, or Chromium on its own account (`not an origin`), which is none of ours. All go
to a proxy of the test, so that nothing leaves the machine.
"""

from __future__ import annotations

import json
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

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
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on this machine (Debian: `chromium`)"
)


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
