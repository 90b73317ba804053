"""How foreign clients are installed and reported: pins with hashes, and no silence where one is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.clients import install

ROOT = Path(__file__).resolve().parents[2]
CLIENT_TEST = "tests/clients/test_client_simple_salesforce.py"


def run(folder: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FORCELIFT_CLIENTS_FOLDER": str(folder), "UV_OFFLINE": "1", **settings}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_addresses_are_added_for_npm_and_never_kept() -> None:
    pins = json.loads(install.NPM_PINS.read_text())
    lock = install.with_addresses(pins, registry="https://mirror.example/npm/")
    places = lock["packages"]
    version = pins["dependencies"]["@salesforce/cli"]
    address = f"https://mirror.example/npm/@salesforce/cli/-/cli-{version}.tgz"
    assert places["node_modules/@salesforce/cli"]["resolved"] == address
    for place, entry in places.items():
        assert ("resolved" in entry) == bool(place and not entry.get("inBundle")), place
    assert install.without_addresses(lock) == pins
    assert json.loads(install.pins_text(pins)) == pins


def test_a_package_without_a_hash_cannot_be_pinned() -> None:
    lock = {"packages": {"": {"dependencies": {"a": "1.0.0"}}, "node_modules/a": {"version": "1.0.0"}}}
    with pytest.raises(install.NotInstalled, match="node_modules/a"):
        install.without_addresses(lock)


def test_what_cannot_be_had_is_named_and_fails_only_where_it_is_required(tmp_path: Path) -> None:
    """Goal: no silence without a network. Method: an empty folder, and an installer that may not ask anybody."""
    optional = run(tmp_path, "tests.clients.install")
    assert optional.returncode == 0, optional.stderr
    for environment in install.ENVIRONMENTS:
        assert f"missing: the clients' environment `{environment}`" in optional.stderr
        assert not (tmp_path / environment / ".pins").exists()
    assert run(tmp_path, "tests.clients.install", "--required").returncode == 1

    test = ("pytest", "-q", "-rs", "-p", "no:cacheprovider", CLIENT_TEST)
    skipped = run(tmp_path, *test)
    assert skipped.returncode == 0
    assert "client environment `simple-salesforce` is missing: `uv` ended with" in skipped.stdout
    assert "passed" not in skipped.stdout
    failed = run(tmp_path, *test, FORCELIFT_CLIENTS="required")
    assert failed.returncode == 1
    assert "is missing" in failed.stdout


def test_another_set_of_pins_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "FOLDER", tmp_path)
    (tmp_path / "cumulusci").mkdir()
    stamp = tmp_path / "cumulusci" / ".pins"
    stamp.write_text("of an earlier version")
    assert "pins" in str(install.missing_reason("cumulusci"))
    stamp.write_text(install.fingerprint("cumulusci"))
    assert install.missing_reason("cumulusci") is None
    (tmp_path / "cumulusci.missing").write_text("no network")
    assert install.missing_reason("cumulusci") == "no network"
