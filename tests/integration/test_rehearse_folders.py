"""What a killed rehearsal leaves goes at the next start; a living one's, and what was to be kept, stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from forcelift.before.rehearse import scratch_folder

_HOLDS = """
import sys, time
from pathlib import Path
from forcelift.before.rehearse import scratch_folder
with scratch_folder(Path(sys.argv[1]), keep=sys.argv[2] == "keep"):
    (Path(sys.argv[1]) / "org.duckdb").write_text("keys")
    print("made", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, word: str = "") -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(folder), word], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "made\n"
    return made


def names(parent: Path) -> set[str]:
    return {path.name for path in parent.iterdir()}


def test_only_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    parent = tmp_path / "rehearsals"
    with (
        holder(parent / "killed") as killed,
        holder(parent / "kept", "keep") as kept,
        holder(parent / "alive") as alive,
    ):
        for process in (killed, kept):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        (parent / "lost.lock").touch()
        with scratch_folder(parent / "mine", keep=False):
            assert {"alive", "alive.lock", "kept", "mine", "mine.lock"} <= names(parent)
            assert not names(parent) & {"killed", "killed.lock", "lost.lock"}
            assert (parent / "alive" / "org.duckdb").read_text() == "keys"
        alive.communicate("")
        assert alive.returncode == 0
    assert {name for name in names(parent) if not name.endswith(".lock")} == {"kept"}


def test_the_folder_is_its_owners_alone_and_goes_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "rehearsals" / "one"
    with scratch_folder(folder, keep=False):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not names(folder.parent)
