"""A stand-in for an org that answers Bulk API 2.0 and stores nothing, so that the clients' own work is what is timed.

It takes any upload, says that every row was created, and gives the rows back in another order with an Id each, as the
result files of Salesforce do. It checks nothing; for behaviour there is the twin.
What it answered once it keeps in a folder, by the upload's checksum, and finds again when the file comes another
turn: then it has nothing to do, and a client never waits for it.
Prints one line of JSON when it listens: its URL and a token.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import uvicorn
from isal import igzip, isal_zlib
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bench import sales

ORG_ID = "00D000000000001EAA"
USER_ID = "005000000000001AAA"
SANDBOX = {
    "Id": ORG_ID,
    "Name": "Sink",
    "OrganizationType": "Enterprise Edition",
    "IsSandbox": True,
    "TrialExpirationDate": None,
    "NamespacePrefix": None,
}
TOKEN = f"{ORG_ID[:15]}!sink.of.the.benchmark"
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What came for a job, and where the answers to it are or will be."""

    path: Path
    answers: Path
    columns: list[str]


class Sink:
    """Uploads in a folder (best in memory) until they are answered, and a count of the requests taken.

    Args:
        folder: For uploads, each until it is answered.
        answers: For answers, which stay.
        job_seconds: How long each job takes, at least.
    """

    def __init__(self, folder: Path, answers: Path, *, job_seconds: float = 0.0) -> None:
        self._folder, self._answers = folder, answers
        self._uploads: dict[str, Upload] = {}
        self._job_seconds = job_seconds
        self._jobs: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        self._work: set[asyncio.Task[None]] = set()
        self.requests = self.rows = 0

    def app(self) -> Starlette:
        """The routes that loaders use."""
        jobs = "/services/data/v{version}/jobs/ingest"
        routes = [
            Route("/services/data", self.versions),
            Route("/services/oauth2/token", self.token, methods=["POST"]),
            Route("/services/oauth2/userinfo", self.userinfo),
            Route("/services/data/v{version}/sobjects/{name}/describe", self.describe),
            Route("/services/data/v{version}/sobjects/User/{id}", self.user),
            Route("/services/data/v{version}/limits", self.limits),
            Route("/services/data/v{version}/query", self.query),
            Route(jobs, self.create, methods=["POST"]),
            Route(jobs, self.list_jobs),
            Route(jobs + "/{job}", self.close, methods=["PATCH"]),
            Route(jobs + "/{job}", self.show),
            Route(jobs + "/{job}", self.delete, methods=["DELETE"]),
            Route(jobs + "/{job}/batches", self.upload, methods=["PUT"]),
            Route(jobs + "/{job}/{kind:path}", self.results),
            Route("/sink/counts", self.count),
        ]
        return Starlette(routes=routes, middleware=[])

    async def count(self, request: Request) -> Response:
        return JSONResponse({"requests": self.requests, "rows": self.rows})

    async def versions(self, request: Request) -> Response:
        self.requests += 1
        return JSONResponse([{"label": "Spring '26", "url": "/services/data/v66.0", "version": "66.0"}])

    async def token(self, request: Request) -> Response:
        self.requests += 1
        base = str(request.base_url).rstrip("/")
        return JSONResponse({"access_token": TOKEN, "instance_url": base, "id": f"{base}/id/{ORG_ID}/{USER_ID}"})

    async def userinfo(self, request: Request) -> Response:
        self.requests += 1
        return JSONResponse(
            {"user_id": USER_ID, "organization_id": ORG_ID, "preferred_username": "loader@sink.example"}
        )

    async def describe(self, request: Request) -> Response:
        self.requests += 1
        return JSONResponse(sales.describe())

    async def user(self, request: Request) -> Response:
        """The user's record, from which the Salesforce CLI takes the user's name."""
        self.requests += 1
        return JSONResponse({"Id": USER_ID, "Username": "loader@sink.example"})

    async def limits(self, request: Request) -> Response:
        self.requests += 1
        names = ("DailyApiRequests", "DailyBulkApiBatches", "DataStorageMB")
        return JSONResponse({name: {"Max": 10**9, "Remaining": 10**9} for name in names})

    async def query(self, request: Request) -> Response:
        """Nothing is stored, so nothing is found, but for the organization's own record: a sandbox's."""
        self.requests += 1
        found = [SANDBOX] if "FROM Organization" in request.query_params.get("q", "") else []
        return JSONResponse({"totalSize": len(found), "done": True, "records": found})

    async def create(self, request: Request) -> Response:
        self.requests += 1
        data: bytes | None = None
        if request.headers["content-type"].startswith("multipart/form-data"):
            async with request.form() as form:
                body, content = json.loads(str(form["job"])), form["content"]
                data = content.encode() if isinstance(content, str) else await content.read()
        else:
            body = await request.json()
        number = next(self._numbers)
        job = {
            "id": f"750{number:012d}AAA",
            "operation": body["operation"],
            "object": body["object"],
            "externalIdFieldName": body.get("externalIdFieldName"),
            "createdById": USER_ID,
            "createdDate": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
            "systemModstamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
            "state": "Open",
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(request.path_params["version"]),
            "contentUrl": f"services/data/v{request.path_params['version']}/jobs/ingest/750{number:012d}AAA/batches",
            "lineEnding": body.get("lineEnding", "LF"),
            "columnDelimiter": "COMMA",
            "jobType": "V2Ingest",
        }
        self._jobs[job["id"]] = job
        if data is None:
            return JSONResponse(job)
        path = self._folder / f"{job['id']}.csv"
        path.write_bytes(data)
        self._keep(job["id"], path, head=data, size=len(data), checksum=isal_zlib.crc32(data))
        del job["contentUrl"]
        self._begin(job)
        return JSONResponse({**job, "state": "UploadComplete"})

    async def list_jobs(self, request: Request) -> Response:
        self.requests += 1
        return JSONResponse({"done": True, "records": list(self._jobs.values()), "nextRecordsUrl": None})

    async def upload(self, request: Request) -> Response:
        self.requests += 1
        job = request.path_params["job"]
        inflate = isal_zlib.decompressobj(wbits=_GZIP) if request.headers.get("content-encoding") == "gzip" else None
        size = checksum = 0
        head = b""
        path = self._folder / f"{job}.csv"
        with path.open("wb") as file:
            async for piece in request.stream():
                data = inflate.decompress(piece) if inflate is not None else piece
                size, checksum = size + len(data), isal_zlib.crc32(data, checksum)
                head = head if b"\n" in head else head + data
                file.write(data)
        self._keep(job, path, head=head, size=size, checksum=checksum)
        return Response(status_code=201)

    def _keep(self, job: str, path: Path, *, head: bytes, size: int, checksum: int) -> None:
        self._uploads[job] = Upload(
            path=path,
            answers=self._answers / f"{size}-{checksum:08x}.gz",
            columns=head.partition(b"\n")[0].decode().strip().replace('"', "").split(","),
        )

    def _begin(self, job: dict[str, Any]) -> None:
        job["state"] = "InProgress"
        task = asyncio.create_task(self._finish(job))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def close(self, request: Request) -> Response:
        self.requests += 1
        job = self._jobs.get(request.path_params["job"])
        if job is None:
            return _unknown_job()
        wanted = (await request.json())["state"]
        if wanted == "UploadComplete":
            self._begin(job)
        else:
            job["state"] = wanted
        return JSONResponse({**job, "state": wanted})

    async def _finish(self, job: dict[str, Any]) -> None:
        try:
            rows, _ = await asyncio.gather(asyncio.to_thread(self._answer, job["id"]), asyncio.sleep(self._job_seconds))
        except Exception as error:
            job.update(state="Failed", errorMessage=str(error))
            raise
        self.rows += rows
        job.update(state="JobComplete", numberRecordsProcessed=rows, numberRecordsFailed=0, totalProcessingTime=1)

    def _answer(self, job: str) -> int:
        upload = self._uploads[job]
        counted = upload.answers.with_suffix(".rows")
        if not counted.exists():
            frame = pl.read_csv(upload.path, infer_schema=False)
            number = pl.col(sales.KEY).cast(pl.Int64)
            shuffled = frame.select(
                ("a00" + number.cast(pl.String).str.zfill(12) + "AAA").alias("sf__Id"),
                pl.lit("true").alias("sf__Created"),
                pl.all(),
            ).sample(fraction=1.0, shuffle=True, seed=frame.height)
            packer = isal_zlib.compressobj(1, zlib.DEFLATED, _GZIP)
            text = shuffled.write_csv(quote_style="always").encode()
            upload.answers.write_bytes(packer.compress(text) + packer.flush())
            counted.write_text(str(frame.height), encoding="ascii")
        upload.path.unlink()
        return int(counted.read_text(encoding="ascii"))

    async def show(self, request: Request) -> Response:
        self.requests += 1
        job = self._jobs.get(request.path_params["job"])
        return _unknown_job() if job is None else JSONResponse(job)

    async def delete(self, request: Request) -> Response:
        self.requests += 1
        return Response(status_code=204)

    async def results(self, request: Request) -> Response:
        self.requests += 1
        upload = self._uploads[request.path_params["job"]]
        kind = request.path_params["kind"].rstrip("/")
        if kind != "successfulResults":
            header = ["sf__Id", *(["sf__Error"] if kind == "failedResults" else []), *upload.columns]
            return Response(",".join(f'"{name}"' for name in header) + "\n", media_type="text/csv")
        if "gzip" in request.headers.get("accept-encoding", ""):
            return FileResponse(upload.answers, media_type="text/csv", headers={"Content-Encoding": "gzip"})
        return StreamingResponse(_inflated(upload.answers), media_type="text/csv")


def _unknown_job() -> Response:
    """A load that was cut off and goes on finds another sink, which has never heard of its jobs."""
    return JSONResponse([{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}], 404)


def _inflated(path: Path) -> Iterator[bytes]:
    with igzip.open(path, "rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def main() -> None:
    """`python -m bench.sink FOLDER ANSWERS SECONDS_A_JOB PORT`: serve on the loopback until killed; port 0 is any."""
    folder, answers = Path(sys.argv[1]), Path(sys.argv[2])
    for one in (folder, answers):
        one.mkdir(parents=True, exist_ok=True)
    sink = Sink(folder, answers, job_seconds=float(sys.argv[3]))
    # With the protocol named, asyncio switches Nagle's delay off; without, an answer in two pieces waits 40 ms for an
    # ACK.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(sys.argv[4])))
        listener.listen(128)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(json.dumps({"url": url, "access_token": TOKEN}), flush=True)
        config = uvicorn.Config(
            sink.app(),
            log_level="warning",
            access_log=False,
            http="httptools",
            lifespan="off",
            timeout_keep_alive=600,  # some clients think long between two calls, and fail on a closed connection
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
