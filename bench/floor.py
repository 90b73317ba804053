"""The floor: what the bare work costs with the same libraries, and nothing else.

Read, clean, canonical hash, CSV, sha256, gzip, PUT, GET, inflate, join by key, Parquet; one chunk after the other. No
engine, no audit, no counts per rule, no retries. Its row hashes are Forcelift's own, which `python -m bench` checks, so
that both are known to do the same work.

`python -m bench.floor DATABASE URL TOKEN FOLDER`
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import httpx
import polars as pl
import polars_hash
import pyarrow as pa
from isal import isal_zlib

from bench import sales

CHUNK_ROWS = 200_000
_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 1_000_000
_DIRTY = r"^[\t-\r ]|[\t-\r ]$|[\x00-\x08\x0b-\x1f\x7f-\x{9f}]|[\x{300}-\x{36f}]"
_CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}]"
_MARK = r"[\p{M}\x{e33}]"
_ROOT = "/services/data/v66.0/jobs/ingest"


def clean(frame: pl.DataFrame) -> pl.DataFrame:
    """The plan's rules as expressions: canonical text of each field, null for none."""
    stamp = "%Y-%m-%dT%H:%M:%SZ"

    def instant(name: str) -> pl.Expr:
        return pl.col(name).dt.replace_time_zone("Asia/Bangkok").dt.convert_time_zone("UTC").dt.strftime(stamp)

    texts = ["TENANT_CODE", "BRANCH_CODE", "RECEIPT_NO", "EMAIL"]
    cleaned = frame.lazy().select(
        pl.col("SALES_ID").cast(pl.String),
        *(pl.col(name).str.strip_chars() for name in texts[:3]),
        pl.col("STATUS").replace({"A": "Active", "C": "Closed", "V": "Void"}),
        pl.col("EMAIL").str.strip_chars(),
        pl.col("QUANTITY").cast(pl.String),
        pl.col("SALES_AMOUNT").cast(pl.String).str.strip_chars_end("0").str.strip_chars_end("."),
        pl.col("SALES_DATE").dt.strftime("%Y-%m-%d"),
        instant("CREATED_DATE"),
        instant("UPDATED_DATE"),
        pl.col("DESCRIPTION"),
        pl.col("DESCRIPTION").str.contains(_DIRTY).alias("dirty"),
    )
    result = cleaned.collect()
    rows = result["dirty"].arg_true()
    mended = (
        result["DESCRIPTION"]
        .gather(rows)
        .str.replace_all("\r\n", "\n", literal=True)
        .str.replace_all("\r", "\n", literal=True)
        .str.replace_all(_CONTROLS, "")
        .str.normalize("NFC")
        .str.strip_chars()
    )
    description = result["DESCRIPTION"].scatter(rows, mended)
    long = (description.str.len_chars() > sales.DESCRIPTION_MAX).arg_true()
    if long.len():
        description = description.scatter(long, cut(description.gather(long)))
    names = {column: field for column, (field, _, _) in sales.FIELDS.items()}
    return result.drop("dirty").with_columns(description.alias("DESCRIPTION")).rename(names)


def cut(texts: pl.Series) -> pl.Series:
    """Cut to the field's length, not between a letter and its marks."""
    head = texts.str.slice(0, sales.DESCRIPTION_MAX)
    splits = texts.str.slice(sales.DESCRIPTION_MAX, 1).str.contains(rf"^{_MARK}").arg_true()
    if splits.len():
        head = head.scatter(splits, head.gather(splits).str.replace(rf"(?s).{_MARK}*$", ""))
    return head.str.strip_chars_end()


def hashes(frame: pl.DataFrame) -> pl.DataFrame:
    """Key and 128-bit hash of each row's canonical text."""
    names = [sales.KEY, *sorted(name for name in frame.columns if name != sales.KEY)]
    head = "\x1f".join(["v1", str(len(names)), *names])
    text = pl.concat_str([pl.lit(head), *(pl.col(name).fill_null("") for name in names)], separator="\x1f")
    hashed = frame.select(pl.col(sales.KEY).alias("key"), text.alias("text"))
    return hashed.select("key", polars_hash.col("text").nchash.xxh3_128().alias("hash"))


class Loader:
    """Sends one chunk after the other."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=120)
        self._folder = folder
        self.rows = 0

    def load(self, frame: pl.DataFrame, number: int) -> None:
        """Clean, send and account for one chunk."""
        cleaned = clean(frame)
        rows = hashes(cleaned)
        buffer = io.BytesIO()
        cleaned.write_csv(buffer, null_value="#N/A")
        body = buffer.getbuffer()
        (self._folder / f"{number}.csv").write_bytes(body)
        digest = hashlib.sha256(body).hexdigest()
        answers = self._send(body)
        ledger = rows.join(answers, on="key", how="left").with_columns(job=pl.lit(digest[:8]))
        if ledger["id"].null_count():
            raise SystemExit("the floor lost a row")
        ledger.write_parquet(self._folder / f"{number}.parquet")
        self.rows += ledger.height

    def _send(self, body: memoryview) -> pl.DataFrame:
        request = {"object": sales.OBJECT, "operation": "upsert", "externalIdFieldName": sales.KEY}
        job = self._http.post(_ROOT, json={**request, "contentType": "CSV"}).raise_for_status().json()["id"]
        squeezer = isal_zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        packed = squeezer.compress(body) + squeezer.flush()
        headers = {"Content-Type": "text/csv", "Content-Encoding": "gzip", "Content-Length": str(len(packed))}
        pieces: Iterator[bytes] = (packed[at : at + _PIECE] for at in range(0, len(packed), _PIECE))
        self._http.put(f"{_ROOT}/{job}/batches", content=pieces, headers=headers).raise_for_status()
        self._http.patch(f"{_ROOT}/{job}", json={"state": "UploadComplete"}).raise_for_status()
        while (state := self._http.get(f"{_ROOT}/{job}").json()["state"]) != "JobComplete":
            if state == "Failed":
                raise SystemExit(f"the sink failed job {job}")
            time.sleep(0.25)
        path = self._folder / "results.csv"
        inflater = isal_zlib.decompressobj(wbits=_GZIP)
        with self._http.stream("GET", f"{_ROOT}/{job}/successfulResults/") as response, path.open("wb") as file:
            for piece in response.iter_raw():
                file.write(inflater.decompress(piece))
        frame = pl.read_csv(path, columns=["sf__Id", "sf__Created", sales.KEY], infer_schema=False)
        return frame.select(pl.col(sales.KEY).alias("key"), pl.col("sf__Id").alias("id"), created="sf__Created")


def chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pl.DataFrame]:
    """Batches as frames of `CHUNK_ROWS` rows each, but for the last."""
    waiting: list[pl.DataFrame] = []
    height = 0
    for batch in batches:
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        while height + frame.height >= CHUNK_ROWS:
            yield pl.concat([*waiting, frame[: CHUNK_ROWS - height]])
            frame, waiting, height = frame[CHUNK_ROWS - height :], [], 0
        if frame.height:
            waiting.append(frame)
            height += frame.height
    if waiting:
        yield pl.concat(waiting)


def main() -> None:
    """Load the table; print rows and seconds."""
    database, url, token, folder = sys.argv[1:5]
    Path(folder).mkdir(parents=True, exist_ok=True)
    loader = Loader(url, token, Path(folder))
    began = time.perf_counter()
    with duckdb.connect(database, read_only=True) as connection:
        columns = ", ".join(sales.FIELDS)
        reader = connection.sql(f"SELECT {columns} FROM {sales.TABLE}").to_arrow_reader(CHUNK_ROWS // 4)
        for number, frame in enumerate(chunks(reader)):
            loader.load(frame, number)
    print(json.dumps({"rows": loader.rows, "seconds": round(time.perf_counter() - began, 3)}))


if __name__ == "__main__":
    main()
