"""How fast the twin takes rows: uploads and jobs of a sales table, over HTTP, with the twin held to a few cores.

Reads:   nothing; makes its own data (12 columns, Thai text, about 466 bytes a row), the same from run to run.
Writes:  a folder for each run under the system's temporary folder, removed at the end; figures on stdout.

Each run is a new twin process with a data file of its own. Sizes are interleaved, so that a busy hour of the machine
hits all of them, and medians are told, with the load of the machine beside them: what neighbours take is missing from
rows/s, while CPU seconds tell more of the twin itself. `make bench` runs it too. On a quiet machine it takes about a
minute and a half; `taskset` keeps the client on the twin's cores, so that nothing has more than those:

    taskset -c 2,3 python -m bench.twin_ingest --runs 3
    python -m bench.twin_ingest --rows 5000000 --runs 1
    python -m bench.twin_ingest --hold 20000000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

TENANTS: Final = 2_000
# How often a job is asked for. Rates are told too low by at most this time for a run.
POLL_S: Final = 0.1
GOAL_ROWS_PER_S: Final = 150_000
# Rows of a file of just under 100 MB, which is what a loader sends as one job.
JOB_ROWS: Final = 210_000
COLUMNS: Final = (
    "External_ID__c,Tenant__r.Tenant_Code__c,Oracle_Created_Date__c,Updated_Date__c,Sales_Date__c,Sales_Amount__c,"
    "Quantity__c,Channel__c,Status__c,Product_Code__c,Customer_Email__c,Description__c"
)
CHANNELS: Final = ("POS", "Online", "Phone", "Partner")
STATUSES: Final = ("Active", "Closed", "Void")
WORDS: Final = (
    "ข้าวหอมมะลิ น้ำดื่ม กาแฟเย็น ชาไทย ขนมปัง ผลไม้อบแห้ง เสื้อยืด กระเป๋าผ้า รองเท้าแตะ หมวกสาน สบู่สมุนไพร "
    "ยาดม น้ำผึ้งป่า ปลากระป๋อง บะหมี่ ไอศกรีม สมุดบันทึก ปากกา ร่มพับ แก้วเซรามิก ผ้าพันคอ พวงกุญแจ ตุ๊กตา ของฝาก "
    "โปรโมชั่น ลดราคา สมาชิก คืนสินค้า แลกแต้ม ชำระเงินสด บัตรเครดิต สาขาใหญ่ สนามบิน ขาออก ขาเข้า ชั้นสอง เที่ยวบิน "
    "กรุงเทพ ภูเก็ต เชียงใหม่"
).split()
LIMITS: Final = {"DataStorageMB": 10_000_000, "DailyApiRequests": 10_000_000}
SCHEMA: Final[dict[str, Any]] = {
    "limits": LIMITS,
    "objects": {
        "KPS_Tenant__c": {
            "fields": {
                "Tenant_Code__c": {
                    "type": "string", "length": 20, "externalId": True, "unique": True, "required": True,
                },
            }
        },
        "KPS_Sales__c": {
            "fields": {
                "External_ID__c": {
                    "type": "string", "length": 30, "externalId": True, "unique": True, "required": True,
                },
                "Tenant__c": {"type": "reference", "referenceTo": "KPS_Tenant__c"},
                "Oracle_Created_Date__c": {"type": "datetime"},
                "Updated_Date__c": {"type": "datetime"},
                "Sales_Date__c": {"type": "date", "required": True},
                "Sales_Amount__c": {"type": "currency", "precision": 18, "scale": 2, "required": True},
                "Quantity__c": {"type": "int", "digits": 8},
                "Channel__c": {"type": "picklist", "restrictedPicklist": True, "values": list(CHANNELS)},
                "Status__c": {"type": "picklist", "restrictedPicklist": True, "values": list(STATUSES)},
                "Product_Code__c": {"type": "string", "length": 20},
                "Customer_Email__c": {"type": "email"},
                "Description__c": {"type": "textarea", "length": 255},
            }
        },
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run took. Times are wall-clock seconds."""

    rows: int
    upload_bytes: int
    upload_s: float
    process_s: float
    peak_mb: float
    cpu_s: float
    file_mb: float
    load: float
    """Load average of the machine over the last minute, at the end of the run."""


def sales(start: int, rows: int) -> bytes:
    """The CSV of rows `start` to `start + rows`; the same text whenever the same rows are asked for."""
    import polars as pl

    chance = random.Random(7)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(5, 18))) for _ in range(5_000)]
    number = pl.int_range(start, start + rows, dtype=pl.Int64, eager=True).alias("n")
    mixed = (number * 2_654_435_761 % 2**31).alias("m")
    moment = pl.datetime(2022, 1, 1) + pl.duration(seconds=pl.col("n") * 7)
    chosen = pl.DataFrame([number, mixed]).select(
        External_ID__c=pl.format("SALE-{}", pl.col("n").cast(pl.String).str.zfill(10)),
        Tenant=pl.format("T{}", (pl.col("m") % TENANTS).cast(pl.String).str.zfill(5)),
        Created=moment.dt.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        Updated=(moment + pl.duration(hours=pl.col("m") % 99)).dt.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        Day=moment.dt.strftime("%Y-%m-%d"),
        Amount=pl.format("{}.{}", pl.col("m") % 90_000, (pl.col("m") % 90 + 10)),
        Quantity=pl.col("m") % 50,
        Channel=pl.lit(pl.Series(CHANNELS)).gather(pl.col("m") % len(CHANNELS)),
        Status=pl.lit(pl.Series(STATUSES)).gather(pl.col("m") % 7 % len(STATUSES)),
        Product=pl.format("P-{}", pl.col("m") % 9_999),
        Email=pl.format("customer{}@shop.example", pl.col("m") % 1_000_000),
        Text=pl.format("{} {}", pl.lit(pl.Series(texts)).gather(pl.col("m") % len(texts)), pl.col("m")),
    )
    return COLUMNS.encode() + b"\n" + chosen.write_csv(include_header=False).encode()


def serve(folder: Path) -> None:
    """Be the twin's process, until stdin ends."""
    from forcelift.twin.org import TwinOrg
    from forcelift.twin.schema_file import schema_from_dict
    from forcelift.twin.server import TwinServer

    with TwinOrg.open(folder / "org.duckdb", schema=schema_from_dict(SCHEMA)) as org, TwinServer(org) as server:
        print(json.dumps(server.describe()), flush=True)
        sys.stdin.read()


class Twin:
    """A twin in a process of its own, and the calls that a load makes."""

    def __init__(self, folder: Path, cores: int) -> None:
        import httpx

        command = [sys.executable, "-m", "bench.twin_ingest", "--serve", str(folder), "--cores", str(cores)]
        self.folder = folder
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self._client = httpx.Client(
            base_url=told["url"] + "/services/data/v66.0/jobs/ingest",
            headers={"Authorization": f"Bearer {told['access_token']}"},
            timeout=600,
        )

    def upload(self, content: bytes, name: str, key: str) -> str:
        """Create an upsert job and send its data."""
        body = {"object": name, "operation": "upsert", "externalIdFieldName": key}
        job: str = self._client.post("", json=body).raise_for_status().json()["id"]
        headers = {"Content-Type": "text/csv", "Content-Length": str(len(content))}
        self._client.put(f"/{job}/batches", content=_pieces(content), headers=headers).raise_for_status()
        return job

    def process(self, jobs: list[str], rows: int) -> None:
        """Close the jobs and wait until all have ended; every row must have been saved."""
        for job in jobs:
            self._client.patch(f"/{job}", json={"state": "UploadComplete"}).raise_for_status()
        saved = 0
        for job in jobs:
            while (state := self._client.get(f"/{job}").raise_for_status().json())["state"] not in (
                "JobComplete", "Failed", "Aborted",
            ):  # fmt: skip
                time.sleep(POLL_S)
            saved += state["numberRecordsProcessed"] - state["numberRecordsFailed"]
        if saved != rows:
            raise SystemExit(f"{saved} of {rows} rows were saved; the figures would mean nothing")

    def forget(self, jobs: list[str]) -> None:
        """Delete jobs with their uploads and results."""
        for job in jobs:
            self._client.delete(f"/{job}").raise_for_status()

    def memory_mb(self, name: str = "VmHWM") -> float:
        """`VmHWM` is the most that was ever in memory, `VmRSS` what is now."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
        raise SystemExit("the system tells no memory of processes")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def file_mb(self) -> float:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) / 1e6

    def close(self) -> None:
        self._client.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 1 << 20):
        yield content[start : start + (1 << 20)]


def prepare(twin: Twin) -> None:
    """Load the parents."""
    codes = "".join(f"T{number:05d}\n" for number in range(TENANTS))
    twin.process([twin.upload(f"Tenant_Code__c\n{codes}".encode(), "KPS_Tenant__c", "Tenant_Code__c")], TENANTS)


def make_files(folder: Path, rows: int) -> None:
    """Write the uploads of so many rows, one for each job, named by rows and number; those that are there are kept."""
    for number, start in enumerate(range(0, rows, JOB_ROWS)):
        file = folder / f"{min(JOB_ROWS, rows - start)}-{number}.csv"
        if not file.exists():
            file.write_bytes(sales(start, min(JOB_ROWS, rows - start)))


def run(rows: int, cores: int, files: Path) -> Figures:
    """One run: upload everything, then close all jobs and wait for the last."""
    with tempfile.TemporaryDirectory(prefix="twin-bench-") as name:
        twin = Twin(Path(name), cores)
        try:
            prepare(twin)
            cpu = twin.cpu_s()
            jobs, size, upload_s = [], 0, 0.0
            for number, start in enumerate(range(0, rows, JOB_ROWS)):
                content = (files / f"{min(JOB_ROWS, rows - start)}-{number}.csv").read_bytes()
                size += len(content)
                began = time.perf_counter()
                jobs.append(twin.upload(content, "KPS_Sales__c", "External_ID__c"))
                upload_s += time.perf_counter() - began
            began = time.perf_counter()
            twin.process(jobs, rows)
            return Figures(
                rows=rows, upload_bytes=size, upload_s=upload_s, process_s=time.perf_counter() - began,
                peak_mb=twin.memory_mb(), cpu_s=twin.cpu_s() - cpu, file_mb=twin.file_mb(),
                load=os.getloadavg()[0],
            )  # fmt: skip
        finally:
            twin.close()


def hold(rows: int, cores: int) -> None:
    """Fill one org job by job, and tell for each million what the last jobs took and what memory is held."""
    with tempfile.TemporaryDirectory(prefix="twin-bench-") as name:
        twin = Twin(Path(name), cores)
        try:
            prepare(twin)
            told, spent, since = 0, 0.0, 0
            print(f"{'records':>12} {'rows/s of the last':>20} {'memory MB':>10} {'peak MB':>8} {'disk MB':>8}")
            for start in range(0, rows, JOB_ROWS):
                count = min(JOB_ROWS, rows - start)
                content = sales(start, count)
                job = twin.upload(content, "KPS_Sales__c", "External_ID__c")
                began = time.perf_counter()
                twin.process([job], count)
                spent, since = spent + time.perf_counter() - began, since + count
                twin.forget([job])
                if start + count >= told + 2_000_000 or start + count == rows:
                    told = start + count
                    print(
                        f"{told:>12,} {since / spent:>20,.0f} {twin.memory_mb('VmRSS'):>10,.0f} "
                        f"{twin.memory_mb():>8,.0f} {twin.file_mb():>8,.0f}", flush=True,
                    )  # fmt: skip
                    spent, since = 0.0, 0
        finally:
            twin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="1000000,2000000", help="sizes, with commas between them")
    parser.add_argument("--runs", type=int, default=3, help="runs of each size")
    parser.add_argument("--cores", type=int, default=2, help="cores that the twin may use")
    parser.add_argument("--hold", type=int, metavar="ROWS", help="fill one org with so many records instead")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.cores])
        serve(chosen.serve)
        return
    if chosen.hold is not None:
        hold(chosen.hold, chosen.cores)
        return
    measure([int(size) for size in chosen.rows.split(",")], runs=chosen.runs, cores=chosen.cores)


def measure(sizes: list[int], *, runs: int, cores: int) -> None:
    """Run all sizes in turns and tell the medians."""
    allowed = sorted(os.sched_getaffinity(0))
    print(f"twin: upsert of 12 columns by external ID with one lookup into an empty object; {runs} runs of each size")
    print(f"twin on cores {allowed[:cores]}, client on {allowed}; load average now {os.getloadavg()[0]:.1f}")
    print(_versions(), flush=True)
    found: dict[int, list[Figures]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory(prefix="twin-bench-") as name:
        for size in sizes:
            make_files(Path(name), size)
        for _ in range(runs):
            for size in sizes:
                found[size].append(run(size, cores, Path(name)))
    print("worked: from the first close to the end of the last job; with upload: all uploads, which came before, added")
    print("CPU: user and system of the twin's process from the first upload on; peak: resident memory of that process")
    heads = f"{'rows':>10} {'rows/s worked':>14} {'least':>9} {'most':>9} {'with upload':>12} {'CPU s/M':>8}"
    print(f"{heads} {'PUT MB/s':>9} {'peak MB':>8} {'load':>6}")
    for size, figures in found.items():
        rates = [one.rows / one.process_s for one in figures]
        whole = statistics.median(one.rows / (one.process_s + one.upload_s) for one in figures)
        put = statistics.median(one.upload_bytes / one.upload_s / 1e6 for one in figures)
        cpu = statistics.median(one.cpu_s / one.rows * 1e6 for one in figures)
        peak = statistics.median(one.peak_mb for one in figures)
        load = statistics.median(one.load for one in figures)
        spread = f"{statistics.median(rates):>14,.0f} {min(rates):>9,.0f} {max(rates):>9,.0f}"
        print(f"{size:>10,} {spread} {whole:>12,.0f} {cpu:>8.1f} {put:>9,.0f} {peak:>8,.0f} {load:>6.1f}")
    one = found[sizes[0]][0]
    print(
        f"{one.upload_bytes / one.rows:.0f} bytes a row; {one.file_mb / one.rows * 1e6:.0f} on disk, uploads included"
    )
    for size, figures in found.items():
        median = statistics.median(one.rows / one.process_s for one in figures)
        word = "reached" if median >= GOAL_ROWS_PER_S else "NOT reached"
        print(f"goal of {GOAL_ROWS_PER_S:,} rows/s worked, median of {size:,} rows: {word}")


def _versions() -> str:
    names = ("duckdb", "polars", "pyarrow", "uvicorn")
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])


if __name__ == "__main__":
    main()
