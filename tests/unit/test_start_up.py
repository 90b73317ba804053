"""What a command imports before it does anything: a matter of structure, so it is held by module names, not by time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FRAMES = frozenset({"adbc_driver_manager", "duckdb", "numpy", "polars", "polars_hash", "pyarrow"})
WIRE = frozenset({"cryptography", "httpx", "psycopg", "starlette", "uvicorn"})
PLAN = frozenset({"pydantic", "rich", "ruamel.yaml", "sqlalchemy"})
ORACLE = "sqlalchemy.dialects.oracle"

_HELP = """
import contextlib, io
from forcelift.cli.main import run_command
with contextlib.redirect_stdout(io.StringIO()) as shown:
    assert run_command(["--help"]) == 0
assert "Commands" in shown.getvalue()
"""
_STATUS = """
from forcelift.cli.lean import defer_imports
defer_imports()
import forcelift.cli.status, forcelift.cli.status_view, forcelift.cli.output, forcelift.account.recorded
import forcelift.audit.reader, forcelift.audit.glances
forcelift.audit.glances.dashboard_sql("performance")
"""
_PARTS = """
backups claims consents jobs notes profiles project_words purges readings reloads retries rollbacks scope shared_work
step_times store undo_records validations verifying
"""
WRITING = frozenset(f"forcelift.audit.{name}" for name in _PARTS.split())
"""Parts of the audit database that a look at a batch does not need: to define their records takes its time."""
UNASKED = frozenset({"difflib", "lzma", "shutil", "socket", "tempfile", "zipfile", "forcelift.plan.windows"})
_RUN = """
from forcelift.cli.lean import import_lean
import_lean()
import forcelift.cli.running, forcelift.salesforce.org, forcelift.source.duckdb
from forcelift.jobs.csv_blocks import whole_rows
assert list(whole_rows([b'a\\nb\\n'], block_bytes=4)) == [b'a\\nb\\n', b'a\\n']
"""


def _imported(code: str) -> set[str]:
    """Names of all modules of a fresh interpreter after this code."""
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        pytest.param(_HELP, FRAMES | WIRE | PLAN, id="--help"),
        pytest.param(
            _STATUS, FRAMES | WIRE | WRITING | UNASKED | {"filelock", "forcelift.salesforce", ORACLE}, id="status"
        ),
        pytest.param(_RUN, frozenset({"numpy", "pyarrow.compute", "pygments", "httpx._main", ORACLE}), id="run"),
        pytest.param("import forcelift.account.remedies", FRAMES | WIRE, id="the words of remedies"),
    ],
)
def test_no_library_is_imported_that_a_command_does_not_need(code: str, unwanted: frozenset[str]) -> None:
    assert _imported(code) & unwanted == set()


def test_a_deferred_module_is_imported_at_the_first_look_into_it() -> None:
    code = (
        "import json, sys\n"
        "from forcelift.cli.lean import defer_imports\n"
        "defer_imports()\n"
        "import asyncio, importlib.metadata\n"
        "from importlib.metadata import entry_points\n"
        "import sqlalchemy, pydantic; pydantic.BaseModel\n"
        "assert not {'ssl', 'email.message', 'asyncio.events'} & set(sys.modules)\n"
        "async def three(): return 3\n"
        "assert asyncio.iscoroutine(made := three()) and asyncio.run(made) == 3\n"
        "import asyncio.events as events\n"
        "assert events is asyncio.events is sys.modules['asyncio'].events\n"
        "assert importlib.metadata.version('click') and entry_points(group='console_scripts')\n"
        "try: asyncio.no_such_name\n"
        "except AttributeError: pass\n"
        "else: raise AssertionError\n"
    )
    assert "asyncio.events" in _imported(code)


def test_the_names_of_lazy_packages_can_all_be_had() -> None:
    code = (
        "import forcelift.audit, forcelift.ledger, forcelift.rules, forcelift.salesforce\n"
        "for package in (forcelift.audit, forcelift.ledger, forcelift.rules, forcelift.salesforce):\n"
        "    for name in package.__all__: getattr(package, name)\n"
        "    assert not hasattr(package, 'no_such_name')\n"
    )
    assert {"polars", "httpx", "duckdb"} <= _imported(code)
