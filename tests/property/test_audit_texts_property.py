"""Texts that fit: longest start that holds the bytes, and short forms that never meet."""

from __future__ import annotations

import hashlib

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from forcelift.audit.columns import fit, record_id
from forcelift.audit.text import fit_text, short_batch_id, short_name, short_table_name

# Letters of one to four bytes, so that every cut can fall inside one.
TEXTS = st.text(alphabet="aé\u0e01\U0001f600~0", max_size=40)
KEYS = st.one_of(
    st.none(),
    TEXTS,
    st.text(alphabet="aก", min_size=30, max_size=110),
    st.builds(lambda row: f"(null key) row {row}", st.integers(0, 30)),
    st.text(alphabet="0a", min_size=32, max_size=32).map(lambda text: "x~" + text),
)


@given(texts=st.lists(st.one_of(st.none(), TEXTS), max_size=20), size=st.integers(1, 40))
def test_columns_are_cut_as_texts_are_and_as_little_as_can_be(texts, size):
    cut = pl.DataFrame({"t": texts}, schema={"t": pl.String}).select(fit(pl.col("t"), size)).to_series().to_list()
    assert cut == [fit_text(text, size) for text in texts]
    for text, short in zip(texts, cut, strict=True):
        if text is None:
            assert short is None
        else:
            assert text.startswith(short)
            assert len(short.encode()) <= size
            rest = text[len(short) :]
            assert not rest or len((short + rest[0]).encode()) > size


def ids_of(keys: list[str | None]) -> list[str]:
    frame = pl.DataFrame({"key": keys, "row": range(len(keys))}, schema={"key": pl.String, "row": pl.UInt32})
    return frame.select(record_id(pl.col("key"), pl.col("row"))).to_series().to_list()


@given(keys=st.lists(KEYS, max_size=30))
@example(keys=["x" * 200, "x" * 67 + "~" + hashlib.sha256(b"x" * 200).hexdigest()[:32]])
@example(keys=[None, "(null key) row 0", ""])
def test_different_keys_have_different_record_ids(keys):
    ids = ids_of(keys)
    assert all(0 < len(made.encode()) <= 100 for made in ids)
    # Null and empty keys are named by their row; every other key is one thing, wherever it stands.
    things = [key if key else (None, row) for row, key in enumerate(keys)]
    assert len(set(ids)) == len(set(things))
    assert len(set(zip(things, ids, strict=True))) == len(set(things))
    for key, made in zip(keys, ids, strict=True):
        if key and len(key.encode()) <= 67 and "~" not in key and not key.startswith("(null key)"):
            assert made == key


@given(names=st.lists(st.one_of(TEXTS, st.text(alphabet="0a~", min_size=20, max_size=60)), unique=True, max_size=20))
def test_different_batches_and_tables_keep_different_names(names):
    # What a short form looks like is fed back in, so that no given name can pose as one.
    names = list(dict.fromkeys(names + [short_name(name, 50) for name in names]))
    for shorten, size in ((short_batch_id, 50), (short_table_name, 100)):
        made = [shorten(name) for name in names]
        assert len(set(made)) == len(names)
        assert all(len(name.encode()) <= size for name in made)
