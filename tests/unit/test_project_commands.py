"""README, Makefile and docs fit together: commands exist, links resolve, contracts cover every part."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "requirements").glob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor that a heading gets: lower case, blanks as hyphens, punctuation left out."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)}


def test_the_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {"make demo", "make test"} <= set(re.findall(r"\bmake [a-z]+\b", readme))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_make_command_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"(?:`|^\s*(?:\$ )?)make ([a-z]+)\b", page.read_text(), re.MULTILINE))
    assert named <= makefile_targets()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_resolve(page: Path) -> None:
    broken = []
    for groups in LINK.findall(prose(page)):
        link = groups[0] or groups[1]
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / unquote(name)).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_module_that_a_page_names_exists(page: Path) -> None:
    """Goal: pages follow the code. Method: each `folder/module.py` is looked up below the package and the root."""
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text()))
    assert not {name for name in named if not any((base / name).exists() for base in (ROOT / "src/forcelift", ROOT))}


def test_every_page_of_the_docs_can_be_reached_from_their_index() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "docs/README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        links = [(a or b).partition("#")[0] for a, b in LINK.findall(prose(page))]
        todo.extend((page.parent / unquote(link)).resolve() for link in links if link and ":" not in link)
    assert not sorted(str(page.relative_to(ROOT)) for page in set((ROOT / "docs").rglob("*.md")) - seen)


def test_decision_records_are_numbered_without_a_gap_and_have_their_four_parts() -> None:
    records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        headings = re.findall(r"^## (.*)$", record.read_text(), re.MULTILINE)
        assert headings == ["Context", "Options", "Decision", "Consequences"], record.name


def test_make_without_a_target_says_what_there_is() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"make demo", "make test"} <= set(re.findall(r"make [a-z]+", shown))


def test_make_knows_how_to_do_every_target_on_a_fresh_machine(tmp_path: Path) -> None:
    """Goal: no target depends on what an earlier run left. Method: a dry run beside a copy of the pins only."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    for target in sorted(makefile_targets() - {"help"}):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        if target != "clean":
            assert "make-venv" in done.stdout, f"`make {target}` does not make its environment"


@pytest.mark.parametrize("script", sorted((ROOT / ".ci").iterdir()), ids=lambda script: script.name)
def test_scripts_can_be_run_and_parse(script: Path) -> None:
    assert os.access(script, os.X_OK)
    shell = "bash" if script.read_text().startswith("#!/usr/bin/env bash") else "sh"
    assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0


def test_the_environment_script_says_what_python_it_needs(tmp_path: Path) -> None:
    """Goal: a clear word where no Python fits. Method: a path that holds only an old one."""
    for name in ("python3", "python3.11"):
        old = tmp_path / "bin" / name
        old.parent.mkdir(exist_ok=True)
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)
    shell = shutil.which("sh")
    assert shell is not None
    done = subprocess.run(
        [shell, str(ROOT / ".ci/make-venv"), str(tmp_path / "venv"), str(ROOT / "requirements/uv.txt")],
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.11, 3.12 or 3.13" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_import_contracts_name_every_adapter_and_noun() -> None:
    """A new part must be placed: the layers are exhaustive, and the twin may import no other part."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {contract["id"]: contract for contract in project["tool"]["importlinter"]["contracts"]}
    parts = {path.stem for path in (ROOT / "src/forcelift").iterdir() if path.suffix == ".py" or path.is_dir()}
    parts -= {
        "__init__",
        "__main__",
        "__pycache__",
        "cli",
        "demo",
        "steering",
        "migration",
        "joining",
        "summary",
        "assembly",
        "twin",
    }
    assert contracts["layers"]["exhaustive"] is True
    barred = {name.removeprefix("forcelift.") for name in contracts["twin"]["forbidden_modules"]}
    assert parts - {"source", "salesforce"} <= barred
