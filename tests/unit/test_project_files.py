"""The project around the code: what is kept in the repository, what is pinned, how modules look."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
CLIENT_LOCKS = [lock for lock in LOCKS if lock.stem.startswith("clients-")]
NPM_PINS = ROOT / "requirements/clients-npm.json"

MODULE_LINES_MAX = 500

# Spelled in pieces, so that this file does not find itself.
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:ro" + r"ot|wo" + r"rk|o" + r"pt/\w+|t" + r"mp/\w+)\b")
REGISTRY_HOSTS = re.compile(
    r"py" + r"pi\.(?:org|python)|files\.python" + r"hosted|registry\.npm" + r"js|index-" + r"url|proxy\.go" + r"lang",
    re.IGNORECASE,
)
FORBIDDEN_LOCKS = {"uv.lock", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "Pipfile.lock"}
# These name the thing itself: an option of the tool that keeps addresses out.
ALLOWED = {("Makefile", "index-" + "url")}


def kept_files() -> list[Path]:
    """Files that are committed or would be; without a repository everything that no tool made."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        names = [ROOT / name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("src", "tests", "docs", "requirements", "examples", ".ci")
        names = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*.*"))
    return sorted({path for path in names if path.is_file() and "__pycache__" not in path.parts})


KEPT = kept_files()


def text_of(path: Path) -> str | None:
    """The file's text; None of a binary file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def test_the_listing_of_kept_files_is_not_empty() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in KEPT}
    assert {"pyproject.toml", "requirements/base.txt", "src/forcelift/errors.py"} <= names


@pytest.mark.parametrize(
    ("pattern", "what"), [(MACHINE_PATHS, "a path of one machine"), (REGISTRY_HOSTS, "the address of a registry")]
)
def test_no_kept_file_names_a_machine_or_a_registry(pattern: re.Pattern[str], what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in KEPT
        for number, line in enumerate((text_of(path) or "").splitlines(), start=1)
        for match in pattern.finditer(line)
        if (path.name, match.group()) not in ALLOWED
    ]
    assert not found, f"{what} stands in {found[:20]}"


@pytest.mark.parametrize(
    "line", ["cd /ro" + "ot/x", "in `/wo" + "rk/main`", "/t" + "mp/forcelift-1/x", "=/o" + "pt/wheels"]
)
def test_the_search_for_machine_paths_finds_them(line: str) -> None:
    assert MACHINE_PATHS.search(line)


@pytest.mark.parametrize("line", ["sqlite:///state/audit.db", "/services/data", "mnt/work/x", "a/root/b"])
def test_the_search_for_machine_paths_leaves_others_alone(line: str) -> None:
    assert not MACHINE_PATHS.search(line)


def test_no_lock_file_that_records_addresses_is_kept() -> None:
    assert not [path for path in KEPT if path.name in FORBIDDEN_LOCKS]


def test_each_lock_is_there() -> None:
    clients = ["airflow", "cumulusci", "node", "simple-salesforce"]
    names = [
        "base.txt",
        "bench.txt",
        "build.txt",
        *(f"clients-{name}.txt" for name in clients),
        "demo.txt",
        "dev.txt",
        "uv.txt",
    ]
    assert [path.name for path in LOCKS] == names


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_pinned_package_has_one_version_and_hashes(lock: Path) -> None:
    text = lock.read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9.-]*==[^ ]+ ", entry), entry[:80]
        assert re.search(r" --hash=sha256:[0-9a-f]{64}", entry), entry[:80]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_lock_names_an_address(lock: Path) -> None:
    assert not re.search(r"://|^\s*-(?!-hash)", lock.read_text().replace(" \\\n", " "), re.MULTILINE)


def normalised(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement).group()).lower()  # type: ignore[union-attr]


def test_locks_pin_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = {"base": project["project"]["dependencies"], **project["dependency-groups"]}
    assert set(declared) == {path.stem for path in LOCKS}
    for name, requirements in declared.items():
        pinned = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / f"requirements/{name}.txt").read_text(), re.MULTILINE))
        lacking = {normalised(requirement) for requirement in requirements} - pinned
        assert not lacking, f"requirements/{name}.txt lacks {lacking}; run `make lock`"


def test_locks_agree_on_versions() -> None:
    """But for those of foreign clients, each of which is installed apart from everything else."""
    pins: dict[str, set[str]] = {}
    for lock in set(LOCKS) - set(CLIENT_LOCKS):
        for name, version in re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE):
            pins.setdefault(name, set()).add(version)
    assert not {name: versions for name, versions in pins.items() if len(versions) > 1}


def test_npm_pins_have_hashes_and_no_addresses() -> None:
    text = NPM_PINS.read_text()
    pins = json.loads(text)
    assert "://" not in text
    assert pins["dependencies"].keys() == {"@salesforce/cli", "jsforce", "oracledb"}
    for name, version in pins["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert pins["packages"][f"node_modules/{name}"]["version"] == version
    for place, pin in pins["packages"].items():
        # What a package brings inside itself is covered by that package's hash.
        assert pin.get("inBundle") or re.match(r"sha512-[A-Za-z0-9+/]{86}==", pin["integrity"]), place


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_each_module_says_what_it_is_for(source: Path) -> None:
    docstring = ast.get_docstring(ast.parse(source.read_text()))
    assert docstring
    assert docstring.split("\n\n")[0].endswith((".", ":", "?"))


def test_no_module_swells() -> None:
    sizes = {path.relative_to(ROOT / "src").as_posix(): len(path.read_text().splitlines()) for path in SOURCES}
    assert not {name: lines for name, lines in sizes.items() if lines > MODULE_LINES_MAX}


def test_duckdb_is_opened_in_one_place_and_draws_no_bar_on_stdout() -> None:
    """An interpreter that runs `-c` counts as interactive, where DuckDB's client turns its progress bar on."""
    openers = {path.name for path in SOURCES if re.search(r"\bduckdb\.connect\(", path.read_text(encoding="utf-8"))}
    assert openers == {"embedded.py", "database.py"}
    ask = "SELECT current_setting('enable_progress_bar')"
    script = (
        "import duckdb, forcelift.embedded as ours, forcelift.twin.database as of_twin\n"
        f"for one in (duckdb, ours, of_twin): print(one.connect().execute({ask!r}).fetchall())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[(True,)]", "[(False,)]", "[(False,)]"]
