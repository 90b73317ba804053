"""The Oracle test server for tests, in each profile, and connections to it by the real driver."""

from __future__ import annotations

from collections.abc import Iterator

import oracledb
import pytest
from tests.oracle_server.server import PROFILES, OracleServer

PASSWORD = "Kps_Secret_1"


@pytest.fixture(params=PROFILES)
def oracle(request: pytest.FixtureRequest) -> Iterator[OracleServer]:
    """A server with a user `KPS` who may do all."""
    yield from serve_oracle(request.param)


@pytest.fixture
def oracle_19c() -> Iterator[OracleServer]:
    """The same in the older profile alone, for tests over many kinds of source."""
    yield from serve_oracle("19c")


def serve_oracle(profile: str) -> Iterator[OracleServer]:
    """As the fixture does, in one profile."""
    with OracleServer(profile) as server:
        server.add_user("KPS", PASSWORD, "DBA", "CREATE TABLE", "SELECT_CATALOG_ROLE", "EXECUTE DBMS_FLASHBACK")
        yield server


@pytest.fixture
def connection(oracle: OracleServer) -> Iterator[oracledb.Connection]:
    """A session of `KPS`."""
    with connect(oracle) as made:
        yield made


def connect(server: OracleServer, user: str = "KPS", **more: object) -> oracledb.Connection:
    """Another session."""
    return oracledb.connect(user=user, password=PASSWORD, dsn=server.dsn, **more)


def code_of(error: pytest.ExceptionInfo[oracledb.Error]) -> str:
    """`ORA-01017` or `DPY-4011`."""
    return str(error.value.args[0].full_code)
