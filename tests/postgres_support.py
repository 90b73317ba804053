"""A real PostgreSQL server for tests: started once in a folder of its own, on a unix socket, with fsync off.

PostgreSQL refuses to run as root, so as root its processes run as the user `postgres` that Debian's package makes.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

SUPERUSER = "forcelift_tests"
_PORT = 5432  # the socket's name only: nothing listens on the network
_numbers = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A server that runs. `folder` holds its socket, `data` its files."""

    folder: Path
    data: Path
    binaries: Path

    def url(self, database: str, **parts: str) -> str:
        """The URL of a database, by the socket, as the superuser."""
        query = "&".join(
            f"{name}={quote(value, safe='')}" for name, value in {"host": str(self.folder), **parts}.items()
        )
        return f"postgresql://{SUPERUSER}@/{database}?{query}"

    def plan_url(self, database: str) -> str:
        """The same as a plan has it, where a URL must name a host: the socket's folder, percent-encoded."""
        return f"postgresql://{SUPERUSER}@{quote(str(self.folder), safe='')}/{database}"

    def dsn(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """What psycopg takes."""
        return f"host={self.folder} port={_PORT} dbname={database} user={user}"

    def create_database(self, options: str = "") -> str:
        """The name of a new, empty database."""
        name = f"test_{next(_numbers)}"
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} {options}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database and end its sessions."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def restart(self) -> None:
        """Stop the server at once, as a crash would, and start it again."""
        _run([self.binaries / "pg_ctl", "-D", self.data, "-m", "immediate", "-w", "restart", "-l", self.data / "log"])


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server, and stop it at the end. Skips the test where there are no binaries, and says so."""
    binaries = _binaries()
    # A short path of its own: a unix socket's name may have about 100 bytes, which pytest's folders go beyond.
    folder = Path(tempfile.mkdtemp(prefix="forcelift-pg-"))
    server = Postgres(folder=folder, data=folder / "data", binaries=binaries)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        _run([binaries / "initdb", "-D", server.data, "-U", SUPERUSER, "-E", "UTF8", "--locale=C", "-N", "-A", "trust"])
        settings = {
            "listen_addresses": "''",
            "unix_socket_directories": f"'{folder}'",
            "port": _PORT,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": 60,
            "shared_buffers": "64MB",
            "autovacuum": "off",
        }
        configuration = "".join(f"{name} = {value}\n" for name, value in settings.items())
        with (server.data / "postgresql.conf").open("a") as file:
            file.write(configuration)
        start = [binaries / "pg_ctl", "-D", server.data, "-w", "-t", "60", "-l", server.data / "log", "start"]
        _run(start)
        try:
            yield server
        finally:
            _run([binaries / "pg_ctl", "-D", server.data, "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder)


def _binaries() -> Path:
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb") + ([shutil.which("initdb")] if shutil.which("initdb") else [])
    if not found:
        pytest.skip("PostgreSQL is not installed here: `apt-get install postgresql` brings initdb and pg_ctl")

    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user `postgres` to run it as")

    def version(path: str) -> int:
        number = re.search(r"/postgresql/(\d+)/", path)
        return int(number[1]) if number else 0

    return Path(max(found, key=version)).parent


def _run(command: Sequence[str | Path]) -> None:
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]
    # Output goes to files, not pipes: the server inherits them, and a reader would wait for its end.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(words, stdout=output, stderr=output, cwd="/", check=False, timeout=120)
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{words} ended with {done.returncode}: {output.read().decode()}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's server. A test module asks for it by `pytest_plugins = ["tests.postgres_support"]`."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The name of an empty database of the test's own."""
    name = postgres.create_database()
    yield name
    postgres.drop_database(name)
