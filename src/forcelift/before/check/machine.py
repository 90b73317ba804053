"""Checks of this machine: disk, memory, and what Airflow needs where it is configured.

Reads:   the file system, the broker that `AIRFLOW__CELERY__BROKER_URL` names, the Salesforce CLI.
Writes:  nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from forcelift.before.check.model import Area, CheckResult, failed, passed, skipped, warned
from forcelift.storage import Disk

BROKER_VARIABLE = "AIRFLOW__CELERY__BROKER_URL"
_PING_S = 5.0
_CLI_S = 60.0
_AREA = Area.MACHINE


def staging_disk(disk: Disk, *, folder: str, needed: int, limit: int, warning: float, critical: float) -> CheckResult:
    """Whether the staging folder's file system has room.

    Args:
        needed: Bytes of all upload files of the plan.
        limit: Bytes that the plan lets staging take.
        warning, critical: Thresholds of use, in percent.
    """
    used = 100.0 * (disk.total - disk.free) / disk.total if disk.total else 100.0
    figure = f"{disk.free / 1e9:,.1f} GB free, {used:.1f} % used"
    evidence = (
        f"the file system of `{folder}`",
        f"{needed / 1e9:,.1f} GB of upload files in all; those that settled are removed on the way",
    )
    if used >= critical:
        fix = f"make room: at {critical:g} % (`thresholds.disk_usage_critical`) staging waits"
        return failed("staging_disk", _AREA, figure, *evidence, fix=fix)
    if used >= warning:
        return warned("staging_disk", _AREA, figure, *evidence, fix=f"make room: over {warning:g} % is used")
    if limit > disk.free and needed > disk.free:
        fix = "lower `limits.staging_gb` to what the disk has, or point `staging` to a larger one"
        return warned("staging_disk", _AREA, figure, *evidence, fix=fix)
    return passed("staging_disk", _AREA, figure, *evidence)


def memory(*, budget_mb: int, total_mb: int | None) -> CheckResult:
    """Whether the plan's memory budget fits the machine."""
    if total_mb is None:
        return skipped("memory", _AREA, "this system does not tell how much memory it has")
    figure = f"{budget_mb:,} MB of {total_mb:,} MB"
    evidence = "`limits.memory_mb` against what the machine has in all"
    if budget_mb > total_mb * 0.9:
        fix = "lower `limits.memory_mb`, or the process may be killed"
        return failed("memory", _AREA, figure, evidence, fix=fix)
    return passed("memory", _AREA, figure, evidence)


def total_memory_mb() -> int | None:
    """The machine's memory, in MB of 2^20 bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    except (AttributeError, ValueError, OSError):  # not on every system
        return None


def redis(environment: Mapping[str, str]) -> CheckResult:
    """Whether the broker answers a PING, where one is configured."""
    url = environment.get(BROKER_VARIABLE, "")
    if not url.startswith(("redis://", "rediss://")):
        return skipped("redis", _AREA, f"`{BROKER_VARIABLE}` names no Redis")
    try:
        import redis as client
    except ModuleNotFoundError:
        return failed("redis", _AREA, "no client", f"`{BROKER_VARIABLE}` is set", fix="pip install 'forcelift[celery]'")
    try:
        with client.Redis.from_url(url, socket_timeout=_PING_S, socket_connect_timeout=_PING_S) as broker:
            broker.ping()
            version = broker.info("server").get("redis_version", "")
    except (client.RedisError, ValueError, OSError) as error:
        fix = f"start Redis, or correct `{BROKER_VARIABLE}`"
        return failed("redis", _AREA, "no answer", f"{type(error).__name__} from the broker", fix=fix)
    return passed("redis", _AREA, "PONG", f"Redis {version}")


def airflow_workers(environment: Mapping[str, str]) -> CheckResult:
    """Whether Celery workers answer, where a broker is configured."""
    url = environment.get(BROKER_VARIABLE)
    if not url:
        return skipped("airflow_workers", _AREA, f"`{BROKER_VARIABLE}` is not set: no Celery workers to ask")
    try:
        from celery import Celery
        from kombu.exceptions import OperationalError
    except ModuleNotFoundError:
        fix = "pip install 'forcelift[celery]'"
        return failed("airflow_workers", _AREA, "no client", f"`{BROKER_VARIABLE}` is set", fix=fix)
    app = Celery(broker=url)
    app.conf.broker_connection_timeout = _PING_S
    app.conf.broker_transport_options = {"socket_timeout": _PING_S, "socket_connect_timeout": _PING_S}
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=_PING_S)
            answers = app.control.ping(timeout=_PING_S / 2, connection=connection) or []
    except (OperationalError, OSError) as error:
        fix = f"start the broker, or correct `{BROKER_VARIABLE}`"
        return failed("airflow_workers", _AREA, "no answer", f"{type(error).__name__} from the broker", fix=fix)
    names = sorted(name for answer in answers for name in answer)
    if not names:
        fix = "start a worker: `airflow celery worker`"
        return failed("airflow_workers", _AREA, "0 workers", "the broker answers, no worker does", fix=fix)
    return passed("airflow_workers", _AREA, f"{len(names)} workers", *names)


def cli_agrees(alias: str | None, *, org_id: str, url: str, user_name: str) -> CheckResult:
    """Whether the Salesforce CLI, where there is one, means the same org by the plan's alias or by the user's name.

    Args:
        alias: The plan's `target.auth.alias`; None where it signs in by itself.
        user_name: Who is signed in. The CLI knows the orgs that somebody has signed in to by it, by this name, too.
    """
    name, program = "cli_agrees", shutil.which("sf")
    if program is None:
        return skipped(name, _AREA, "the Salesforce CLI (`sf`) is not installed here")
    command = [program, "org", "display", f"--target-org={alias or user_name}", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CLI_S, check=False)  # noqa: S603 - no shell, the program from PATH
        shown: dict[str, Any] = json.loads(done.stdout)["result"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        if alias is None:
            return skipped(name, _AREA, f"`sf org display` tells nothing of {user_name}, and the plan signs in without")
        fix = f"see what `sf org display --target-org {alias}` says"
        return warned(name, _AREA, "no answer", f"`sf org display`: {type(error).__name__}", fix=fix)
    said, instance = str(shown.get("id") or ""), str(shown.get("instanceUrl") or "").rstrip("/")
    evidence = (f"`sf`: {said} at {instance}", f"signed in: {org_id} at {url}")
    if said[:15] != org_id[:15]:
        fix = "correct the alias in `target.auth.alias`" if alias else "see which org `target.url` is meant to be"
        return failed(name, _AREA, "another org", *evidence, fix=fix)
    if instance and instance != url:
        return warned(name, _AREA, "another host", *evidence, fix="set `target.url` to the org's My Domain")
    return passed(name, _AREA, "the same org", *evidence)
