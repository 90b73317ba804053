"""A stand-in for an org that answers Bulk API 2.0 and stores nothing, so that the clients' own work is what is timed.

It takes any upload, says that every row was created, and gives the rows back in another order with an Id each, as the
result files of Salesforce do. It checks nothing; for behaviour there is the twin.
Prints one line of JSON when it listens: its URL and a token.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import uvicorn
from isal import isal_zlib
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from bench import sales

ORG_ID = "00D000000000001EAA"
USER_ID = "005000000000001AAA"
TOKEN = f"{ORG_ID[:15]}!sink.of.the.benchmark"
_GZIP = 16 + zlib.MAX_WBITS


class Sink:
    """Jobs in a folder (best in memory), and a count of the requests taken."""

    def __init__(self, folder: Path, *, job_seconds: float = 0.0) -> None:
        self._folder = folder
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
        """Nothing is stored, so nothing is found, but for the organization's own record."""
        self.requests += 1
        return JSONResponse({"totalSize": 0, "done": True, "records": []})

    async def create(self, request: Request) -> Response:
        self.requests += 1
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
        return JSONResponse(job)

    async def list_jobs(self, request: Request) -> Response:
        self.requests += 1
        return JSONResponse({"done": True, "records": list(self._jobs.values()), "nextRecordsUrl": None})

    async def upload(self, request: Request) -> Response:
        self.requests += 1
        inflate = isal_zlib.decompressobj(wbits=_GZIP) if request.headers.get("content-encoding") == "gzip" else None
        with self._file(request.path_params["job"], "csv").open("wb") as file:
            async for piece in request.stream():
                file.write(inflate.decompress(piece) if inflate is not None else piece)
        return Response(status_code=201)

    async def close(self, request: Request) -> Response:
        self.requests += 1
        job = self._jobs[request.path_params["job"]]
        wanted = (await request.json())["state"]
        if wanted == "UploadComplete":
            job["state"] = "InProgress"
            task = asyncio.create_task(self._finish(job))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
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
        frame = pl.read_csv(self._file(job, "csv"), infer_schema=False)
        numbers = int(job[3:15]) * 1_000_000 + pl.int_range(frame.height, eager=True)
        shuffled = frame.select(
            ("a00" + numbers.cast(pl.String).str.zfill(12) + "AAA").alias("sf__Id"),
            pl.lit("true").alias("sf__Created"),
            pl.all(),
        ).sample(fraction=1.0, shuffle=True, seed=len(job))
        text = shuffled.write_csv(quote_style="always").encode()
        self._file(job, "out").write_bytes(text)
        packer = isal_zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        self._file(job, "out.gz").write_bytes(packer.compress(text) + packer.flush())
        return frame.height

    async def show(self, request: Request) -> Response:
        self.requests += 1
        return JSONResponse(self._jobs[request.path_params["job"]])

    async def delete(self, request: Request) -> Response:
        self.requests += 1
        return Response(status_code=204)

    async def results(self, request: Request) -> Response:
        self.requests += 1
        job, kind = request.path_params["job"], request.path_params["kind"].rstrip("/")
        if kind != "successfulResults":
            header = ["sf__Id", *(["sf__Error"] if kind == "failedResults" else []), *_header(self._file(job, "csv"))]
            return Response(",".join(f'"{name}"' for name in header) + "\n", media_type="text/csv")
        if "gzip" in request.headers.get("accept-encoding", ""):
            return FileResponse(self._file(job, "out.gz"), media_type="text/csv", headers={"Content-Encoding": "gzip"})
        return FileResponse(self._file(job, "out"), media_type="text/csv")

    def _file(self, job: str, kind: str) -> Path:
        return self._folder / f"{job}.{kind}"


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        return file.readline().decode().strip().replace('"', "").split(",")


def main() -> None:
    """`python -m bench.sink FOLDER [SECONDS_A_JOB]`: serve on a free port of the loopback until killed."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    sink = Sink(folder, job_seconds=float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(json.dumps({"url": url, "access_token": TOKEN}), flush=True)
        config = uvicorn.Config(sink.app(), log_level="warning", access_log=False, http="httptools", lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
