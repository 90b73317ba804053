"""A retry killed at any moment and gone on with: one record for each row that is good now, and nothing sent twice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.faults.fault_retry import RetryProcess, check_retried, mend
from tests.faults.fault_twin import org_client
from tests.faults.fault_world import fault_world
from tests.oracle_audit_support import new_user
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, oracle_19c

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]
__all__ = ["oracle_19c"]

SIGNS = ("journal", "requests", "files")


def drill(folder: Path, *, seed: int, rows: int, chunk_rows: int, kills: int, audit_url: str | None = None) -> None:
    """Load, mend org and plan, kill the retry so often, let it end, and compare the org with what it must be."""
    rng = random.Random(seed)
    with fault_world(folder, seed=seed, rows=rows, chunk_rows=chunk_rows) as world:
        loader = world.loader
        if audit_url is not None:
            with loader.plan.open("a", encoding="utf-8") as plan:
                plan.write(f'audit: {{url: "{audit_url}"}}\n')
        assert loader.run() == 1, loader.output()
        with org_client(world.twin, client_id="other") as org:
            expected = mend(world, org)
        retry = RetryProcess(loader)
        # A watcher of ours sees the journal of a file alone.
        signs = SIGNS if audit_url is None else ("requests", "files")
        for _ in range(kills):
            if not retry.killed(rng, signs):
                break
        code = retry.run()
        assert code in (0, 1), loader.output()[-3000:]
        with org_client(world.twin) as org:
            check_retried(world, org, expected)
        # Nothing that is good is sent once more.
        jobs = len(loader.audit("SELECT job_no FROM job WHERE kind = 'retry'"))
        assert retry.run() in (0, 1)
        with org_client(world.twin) as org:
            check_retried(world, org, expected)
        assert len(loader.audit("SELECT job_no FROM job WHERE kind = 'retry'")) == jobs


@pytest.mark.parametrize("seed", [41])
def test_retry_killed_thrice_sends_each_row_once(tmp_path: Path, seed: int) -> None:
    drill(tmp_path, seed=seed, rows=1_000, chunk_rows=300, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(401, 407))
def test_retry_killed_twelve_times(tmp_path: Path, seed: int) -> None:
    drill(tmp_path, seed=seed, rows=20_000, chunk_rows=2_000, kills=12)


# A process that was killed counts as alive for a while on a server, so each kill takes about a minute.
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [51, 52])
def test_retry_killed_with_its_audit_database_on_postgresql(
    tmp_path: Path, postgres: Postgres, database: str, seed: int
) -> None:
    drill(tmp_path, seed=seed, rows=1_000, chunk_rows=300, kills=3, audit_url=postgres.plan_url(database))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [61])
def test_retry_killed_with_its_audit_database_on_oracle(
    tmp_path: Path, oracle_19c: OracleServer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("AUDIT_PASSWORD", PASSWORD)
    user = new_user(oracle_19c)
    url = f"oracle://{user}:${{AUDIT_PASSWORD}}@127.0.0.1:{oracle_19c.port}/{oracle_19c.service}"
    drill(tmp_path, seed=seed, rows=1_000, chunk_rows=300, kills=2, audit_url=url)
