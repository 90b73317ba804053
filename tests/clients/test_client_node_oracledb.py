"""node-oracledb, the other thin driver by Oracle's makers, against the Oracle test server: a second opinion of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.clients.clients_support import DRIVERS
from tests.clients.install import FOLDER, node_folder
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, oracle

__all__ = ["oracle"]

pytestmark = pytest.mark.clients

NOTE = "ก" * 5_000
# Each column, and what goes into it: a bind, or SQL beside what the driver is to read of it.
COLUMNS = {
    "name": ("VARCHAR2(40)", ":2", "ไทย"),
    "note": ("CLOB", ":3", NOTE),
    "amount": ("NUMBER(12,2)", "-1234.56", "-1234.56"),
    "wide": ("NUMBER(38)", "12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
    "plain": ("NUMBER", "1E100", "1" + "0" * 100),
    "day": ("DATE", "TO_DATE('2026-11-22 10:11:12', 'YYYY-MM-DD HH24:MI:SS')", "2026-11-22T10:11:12.000Z"),
    "moment": ("TIMESTAMP(6)", "TIMESTAMP '2026-11-22 10:11:12.123456'", "2026-11-22T10:11:12.123Z"),
    "zoned": (
        "TIMESTAMP WITH TIME ZONE",
        "TIMESTAMP '2026-11-22 10:11:12.5 +07:00'",
        "2026-11-22T03:11:12.500Z",
    ),
    "bits": ("RAW(4)", "HEXTORAW('00FF')", "00ff"),
    "double": ("BINARY_DOUBLE", "1.5", 1.5),
    "padded": ("CHAR(5)", "'ab'", "ab   "),
    "national": ("NVARCHAR2(10)", "N'โน้ต'", "โน้ต"),
    "nothing": ("VARCHAR2(3)", "''", None),
}


def test_node_oracledb_agrees_with_the_test_server(
    oracle: OracleServer, tmp_path: Path, need_environment: Callable[[str], None], record_property: Callable[..., None]
) -> None:
    need_environment("node")
    columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in COLUMNS.items())
    task = {
        "user": "KPS",
        "password": PASSWORD,
        "dsn": oracle.dsn,
        "table": f"CREATE TABLE n (id NUMBER(9) PRIMARY KEY, {columns})",
        "insert": f"INSERT INTO n VALUES (:1, {', '.join(sql for _, sql, _ in COLUMNS.values())})",
        "columns": ", ".join(COLUMNS),
        "name": "ไทย",
        "note": NOTE,
        "rows": 2_000,
        "wrong": ["SELECT 1 FROM nosuch", "SELECT no_col FROM n", "INSERT INTO n (id) VALUES (1)"],
    }
    (tmp_path / "task.json").write_text(json.dumps(task), encoding="utf-8")
    node = node_folder()
    # The server knows no zones by region, which the client would name after this machine's.
    settings = {"PATH": os.pathsep.join((str(node), os.defpath)), "ORA_SDTZ": "+00:00", "TZ": "UTC"}
    done = subprocess.run(
        [node / "node", DRIVERS / "oracledb_driver.mjs", "task.json", "seen.json"],
        cwd=tmp_path,
        env=settings | {"CLIENT_PACKAGES": str(FOLDER / "node")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text(encoding="utf-8"))
    record_property("client", f"node-oracledb {seen['version']}")
    assert seen["thin"] is True
    assert seen["server"].partition(".")[0] == oracle.profile.removesuffix("ai").removesuffix("c")
    assert dict(zip(COLUMNS, seen["values"], strict=True)) == {name: value for name, (*_, value) in COLUMNS.items()}
    assert (seen["many"], seen["left"], seen["then"]) == (2_000, [1, 3], "2001")
    assert seen["pages"] == [2_001, 3 + sum(len(f"row {at}") for at in range(2_000))]
    assert seen["afterRollback"] == [1, 3]
    assert seen["errors"] == [942, 904, 1, 1017]
