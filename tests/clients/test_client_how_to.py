"""The lines of the page on other clients, run as they stand."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clients.clients_support import CLIENT_TIMEOUT_S, connect
from tests.clients.install import FOLDER, ROOT, node_folder

pytestmark = pytest.mark.clients

PAGE = ROOT / "docs/how-to/point-other-clients-at-the-twin.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"(?:#|//) (\S+)\n")
FIRST = "Start a twin"
ENVIRONMENTS = {
    "Salesforce CLI": "node",
    "jsforce": "node",
    "simple-salesforce": "simple-salesforce",
    "CumulusCI": "cumulusci",
    "Airflow": "airflow",
}


def sections() -> dict[str, list[tuple[str, str]]]:
    """Code blocks by heading: language and text."""
    parts = re.split(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {heading: BLOCK.findall(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def lay_out(folder: Path, blocks: list[tuple[str, str]]) -> str:
    """Write blocks that begin with a file's name; the text of the others, which are a script."""
    script = []
    for language, text in blocks:
        name = FILE_NAME.match(text)
        if language == "sh":
            script.append(text)
        else:
            assert name is not None, text
            (folder / name[1]).write_text(text, encoding="utf-8")
    return "".join(script)


@contextlib.contextmanager
def shell(folder: Path, script: str, path: list[Path]) -> Iterator[str]:
    """Run a script to its end; what it started in the background lives until the block ends."""
    environment = {
        "PATH": os.pathsep.join([*map(str, path), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
    }
    with (folder / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            ["sh", "-e", "-c", script], cwd=folder, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = process.wait(CLIENT_TIMEOUT_S)
            output.seek(0)
            text = output.read()
            assert code == 0, text
            yield text
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def programs(folder: Path, environment: str) -> list[Path]:
    """Folders with the client's programs, `forcelift`, and a Python 3 for the page's small questions."""
    own = folder / "bin"
    own.mkdir()
    (own / "forcelift").symlink_to(Path(sys.executable).with_name("forcelift"))
    (own / "python3").symlink_to(Path(sys.executable).resolve())
    if environment == "node":
        (folder / "node_modules").symlink_to(FOLDER / "node" / "node_modules")
        return [own, FOLDER / "node" / "node_modules" / ".bin", node_folder()]
    return [own, FOLDER / environment / "bin"]


def test_the_page_has_a_section_for_each_client() -> None:
    assert list(sections()) == [FIRST, *ENVIRONMENTS, "What is tried"]


@pytest.mark.parametrize("heading", ENVIRONMENTS)
def test_the_lines_of_the_page_run(heading: str, tmp_path: Path, need_environment: Callable[[str], None]) -> None:
    need_environment(ENVIRONMENTS[heading])
    if heading == "CumulusCI" and shutil.which("git") is None:
        pytest.skip("the page's lines make a git folder, and there is no git; the course of CumulusCI needs none")
    blocks = sections()
    script = lay_out(tmp_path, blocks[FIRST]) + lay_out(tmp_path, blocks[heading])
    with shell(tmp_path, script, programs(tmp_path, ENVIRONMENTS[heading])) as said:
        document = json.loads((tmp_path / "twin.json").read_text())
        with connect(document) as http:
            soql = "SELECT Ext_Id__c, Name, Status__c FROM Customer__c"
            answer = http.get("/services/data/v62.0/query", params={"q": soql}).json()
    held = {row["Ext_Id__c"]: (row["Name"], row["Status__c"]) for row in answer["records"]}
    changed = heading in ("Salesforce CLI", "jsforce", "simple-salesforce")
    assert held == {"C1": ("หนึ่ง", "New"), "C2": ("สอง (แก้ไข)" if changed else "สอง", "Active")}
    refusals = heading != "Airflow"  # whose lines load the good rows only
    # CumulusCI breaks its lines at the width of a screen.
    assert ("bad value for restricted picklist field" in " ".join(said.split())) == refusals, said
