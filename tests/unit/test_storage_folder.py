"""Storage in a folder: seals, crashes, modes, names, errors."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from forcelift.errors import ExitCode, StorageError
from forcelift.storage import FolderStorage, Sealed, segment

NAME = "staging/B1/KPS_T_SALES_MD/c000001.p00.csv"


class Crash(Exception):
    pass


@pytest.fixture
def storage(tmp_path):
    return FolderStorage(tmp_path / "state" / "staging")


def put(storage, name=NAME, data=b"a,b\n1,2\n") -> Sealed:
    with storage.write(name) as file:
        file.write(data)
        return file.commit()


def everything(storage) -> list[str]:
    return sorted(path.name for path in storage.root.rglob("*") if path.is_file())


def test_committed_file_is_sealed_and_private(storage):
    sealed = put(storage)
    assert sealed == Sealed(name=NAME, sha256=hashlib.sha256(b"a,b\n1,2\n").hexdigest(), size=8)
    storage.verify(NAME, sealed.sha256)
    with storage.open(NAME) as file:
        assert file.read() == b"a,b\n1,2\n"
    with storage.local(NAME) as path:
        assert path.read_bytes() == b"a,b\n1,2\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folders = [storage.root, *(path for path in storage.root.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert (storage.exists(NAME), storage.size(NAME)) == (True, 8)


def test_file_written_by_its_path_has_the_seal_of_its_bytes(storage):
    frame = pl.DataFrame({"a": range(1000)})
    with storage.write("x.csv") as file:
        frame.lazy().sink_csv(file.path)
        sealed = file.commit()
    data = storage.path("x.csv").read_bytes()
    assert (sealed.sha256, sealed.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert pl.read_csv(storage.path("x.csv")).equals(frame)
    assert stat.S_IMODE(storage.path("x.csv").stat().st_mode) == 0o600


def test_file_without_commit_never_was(storage):
    with storage.write(NAME) as file:
        file.write(b"half")
        assert storage.list() == ()
        assert len(everything(storage)) == 1
    with pytest.raises(Crash), storage.write(NAME) as file:
        raise Crash
    assert everything(storage) == []


def test_replacing_keeps_the_old_file_until_the_commit(storage):
    put(storage, data=b"old")
    with storage.write(NAME) as file:
        file.write(b"new")
        assert storage.path(NAME).read_bytes() == b"old"
        file.commit()
        with pytest.raises(ValueError, match="committed already"):
            file.commit()
    assert storage.path(NAME).read_bytes() == b"new"


@pytest.mark.parametrize(
    ("crash_at", "stands"), [("commit.before", b"old"), ("commit.renamed", b"new"), ("commit.done", b"new")]
)
def test_crash_around_the_commit_leaves_the_old_or_the_new_file_whole(tmp_path, crash_at, stands):
    steps = []

    def on_step(step, name):
        steps.append((step, name))
        if step == crash_at:
            raise Crash

    put(FolderStorage(tmp_path), data=b"old")
    with pytest.raises(Crash):
        put(FolderStorage(tmp_path, on_step=on_step), data=b"new")
    assert steps[-1] == (crash_at, NAME)
    after = FolderStorage(tmp_path)
    after.sweep()
    assert after.path(NAME).read_bytes() == stands
    assert after.list() == (NAME,)


WRITER = """
import sys
from pathlib import Path
from forcelift.storage import FolderStorage
with FolderStorage(Path(sys.argv[1])).write("dead/x.csv") as file:
    file.write(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_sweep_removes_what_the_dead_left_and_spares_the_living(storage):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(storage.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout.readline() == "writing\n"
        with storage.write("mine.csv") as file:
            file.write(b"x")
            assert storage.sweep() == 0
            assert len(everything(storage)) == 2
            writer.kill()
            writer.communicate()
            assert storage.sweep("dead") == 1
            file.commit()
    finally:
        writer.kill()
        writer.communicate()
    assert storage.sweep() == 0
    assert everything(storage) == ["mine.csv"]


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "a\\b", "a\0b", "C:x", "a/.b.1.tmp"]
)
def test_names_that_lead_astray_are_refused(storage, name):
    for ask in (storage.path, storage.write, storage.open, storage.exists, storage.delete):
        with pytest.raises(StorageError):
            ask(name)


def test_link_that_leads_out_is_refused(storage, tmp_path):
    (tmp_path / "outside").mkdir()
    (storage.root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="leads out"):
        put(storage, "link/x.csv")
    assert list((tmp_path / "outside").iterdir()) == []


def test_list_delete_and_usage(storage):
    for name in ("a/1", "a/2", "a/b/3", "c/4"):
        put(storage, name, b"12345")
    assert storage.list() == ("a/1", "a/2", "a/b/3", "c/4")
    assert storage.list("a") == ("a/1", "a/2", "a/b/3")
    assert storage.list("none") == ()
    used, total, free = storage.usage()
    assert used == 20
    assert 0 < free <= total
    assert (storage.delete("c/4"), storage.delete("c/4")) == (True, False)
    assert (storage.delete_tree("a"), storage.delete_tree("a")) == (3, 0)
    assert storage.list() == ()
    assert not (storage.root / "a").exists()


def test_changed_or_missing_file_does_not_pass(storage):
    sealed = put(storage)
    storage.path(NAME).write_bytes(b"a,b\n1,3\n")
    with pytest.raises(StorageError, match="changed after it was sealed") as caught:
        storage.verify(NAME, sealed.sha256)
    assert caught.value.exit_code is ExitCode.STATE
    storage.delete(NAME)
    for ask in (storage.open, storage.size, lambda name: storage.verify(name, sealed.sha256)):
        with pytest.raises(StorageError, match="missing"):
            ask(NAME)
    with pytest.raises(StorageError, match="missing"), storage.local(NAME):
        pass


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "error"),
    ],
)
def test_system_errors_on_commit_are_told(storage, monkeypatch, number, words):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=words) as caught:
        put(storage, "x.csv")
    assert caught.value.state
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)
    monkeypatch.undo()
    assert everything(storage) == []


def test_full_disk_under_a_writer_that_was_given_the_path(storage):
    """Polars reports a full disk in its own words and without a number; `/dev/full` is one."""
    rows = pl.DataFrame({"a": range(1_000_000)})

    def put_on_full_disk(write):
        with storage.write("x.csv") as file:
            file.path.unlink()
            file.path.symlink_to("/dev/full")
            write(file.path)

    for write in (rows.write_parquet, rows.lazy().sink_csv):
        with pytest.raises(StorageError, match="the disk is full"):
            put_on_full_disk(write)
    assert everything(storage) == []


def test_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be created"):
        FolderStorage(tmp_path / "file" / "staging")


def test_threads_make_the_same_folders_at_once(storage):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(storage, f"a/b/c/d/{number}"), range(40)))
    assert len(storage.list("a/b/c/d")) == 40


def test_segments_are_safe_and_apart():
    texts = [
        "T",
        "t",
        "a/b",
        "a%2Fb",
        "..",
        ".",
        "",
        "~",
        "ยอดขาย",
        "x" * 500,
        "x" * 501,
        "a b",
        "a:b",
        ".x.tmp",
        "ย" * 99,
    ]
    made = [segment(text) for text in texts]
    assert len(set(made)) == len(texts)
    assert all(0 < len(part) <= 120 and set(part).isdisjoint("/\\:. ") for part in made)
    assert segment("KPS_T_SALES_MD") == "KPS_T_SALES_MD"


def test_the_disk_s_room_is_what_this_user_may_use(storage):
    disk, usage = storage.disk(), shutil.disk_usage(storage.root)
    assert 0 < disk.free <= disk.total <= usage.total
    assert disk.total - disk.free == pytest.approx(usage.used, rel=0.05)
