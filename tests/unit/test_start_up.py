"""What a command imports before it does anything: a matter of structure, so it is held by module names, not by time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FRAMES = frozenset({"adbc_driver_manager", "duckdb", "numpy", "polars", "polars_hash", "pyarrow"})
WIRE = frozenset({"cryptography", "httpx", "psycopg", "starlette", "uvicorn"})
PLAN = frozenset({"pydantic", "rich", "ruamel.yaml", "sqlalchemy"})

_HELP = """
import contextlib, io
from forcelift.cli.main import run_command
with contextlib.redirect_stdout(io.StringIO()) as shown:
    assert run_command(["--help"]) == 0
assert "Commands" in shown.getvalue()
"""
_STATUS = "import forcelift.cli.status, forcelift.cli.status_view, forcelift.recorded"


def _imported(code: str) -> set[str]:
    """Names of all modules of a fresh interpreter after this code."""
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        pytest.param(_HELP, FRAMES | WIRE | PLAN, id="--help"),
        pytest.param(_STATUS, FRAMES | WIRE, id="status"),
        pytest.param("import forcelift.remedies", FRAMES | WIRE, id="the words of remedies"),
    ],
)
def test_no_library_is_imported_that_a_command_does_not_need(code: str, unwanted: frozenset[str]) -> None:
    assert _imported(code) & unwanted == set()


def test_the_names_of_lazy_packages_can_all_be_had() -> None:
    code = (
        "import forcelift.ledger, forcelift.rules, forcelift.salesforce\n"
        "for package in (forcelift.ledger, forcelift.rules, forcelift.salesforce):\n"
        "    for name in package.__all__: getattr(package, name)\n"
        "    assert not hasattr(package, 'no_such_name')\n"
    )
    assert {"polars", "httpx", "duckdb"} <= _imported(code)
