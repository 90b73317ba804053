"""Fixtures of the clients' tests: their environments, and orgs over HTTP and HTTPS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clients.clients_support import Org, served_org
from tests.clients.install import missing_reason

REQUIRED = os.environ.get("FORCELIFT_CLIENTS") == "required"
CLOSED_OFF = os.environ.get("FORCELIFT_LOOPBACK_ONLY") == "1"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which clients, in which versions, the outcome is about, and whether they could reach beyond this machine."""
    said = {
        f"{value}: {outcome}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in report.user_properties
        if name == "client"
    }
    if said:
        terminalreporter.section("clients")
        for line in sorted(said):
            terminalreporter.write_line(line)
        network = "loopback only" if CLOSED_OFF else "open: this system lets nobody close it off"
        terminalreporter.write_line(f"network: {network}")


@pytest.fixture(scope="session")
def need_environment() -> Callable[[str], None]:
    """Skip the test if a client is not there; fail instead where all of them have to be."""

    def need(environment: str) -> None:
        reason = missing_reason(environment)
        if reason is not None:
            (pytest.fail if REQUIRED else pytest.skip)(f"the client environment `{environment}` is missing: {reason}")

    return need


@pytest.fixture
def org(tmp_path: Path) -> Iterator[Org]:
    """A new org over plain HTTP."""
    with served_org(tmp_path / "twin", tls=False) as served:
        yield served


@pytest.fixture
def secure_org(tmp_path: Path) -> Iterator[Org]:
    """A new org over HTTPS, with a certificate that it made itself."""
    with served_org(tmp_path / "twin", tls=True) as served:
        yield served
