"""A sealed file that is handed on: whole if it is unchanged, never as much as was announced if it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forcelift.errors import StorageError
from forcelift.storage import FolderStorage, Sealed, sealed_pieces

NAME = "part.csv"


def sealed_file(folder: Path, data: bytes) -> tuple[FolderStorage, Sealed]:
    storage = FolderStorage(folder)
    with storage.write(NAME) as file:
        file.write(data)
        return storage, file.commit()


@given(data=st.binary(min_size=1, max_size=40), piece_bytes=st.integers(1, 50))
def test_an_unchanged_file_is_given_whole(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, piece_bytes: int
) -> None:
    storage, sealed = sealed_file(tmp_path_factory.mktemp("storage"), data)
    pieces = list(
        sealed_pieces(storage, NAME, size=sealed.size, sha256=sealed.sha256, piece_bytes=piece_bytes),
    )
    assert b"".join(pieces) == data
    assert all(len(piece) == piece_bytes for piece in pieces[:-1])
    assert all(pieces)


@pytest.mark.parametrize(
    "now",
    [b"abcdefghijkX", b"Xbcdefghijkl", b"abcdefghijk", b"abcdefgh", b"", b"abcdefghijklm", b"abcdefghijkl" * 2],
    ids=["last byte", "first byte", "shorter", "shorter by a piece", "empty", "longer", "twice as long"],
)
@pytest.mark.parametrize("piece_bytes", [4, 5, 12, 100])
def test_of_a_changed_file_less_is_given_than_was_sealed(tmp_path: Path, now: bytes, piece_bytes: int) -> None:
    storage, sealed = sealed_file(tmp_path, b"abcdefghijkl")
    storage.path(NAME).write_bytes(now)
    taken = bytearray()

    def take_all() -> None:
        for piece in sealed_pieces(storage, NAME, size=12, sha256=sealed.sha256, piece_bytes=piece_bytes):
            taken.extend(piece)

    with pytest.raises(StorageError, match="changed after it was sealed"):
        take_all()
    assert len(taken) < 12


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    storage, sealed = sealed_file(tmp_path, b"a")
    storage.delete(NAME)
    with pytest.raises(StorageError, match="missing"):
        list(sealed_pieces(storage, NAME, size=1, sha256=sealed.sha256, piece_bytes=8))
