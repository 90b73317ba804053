"""The Salesforce hook of Airflow against the twin, over HTTPS, as it knows no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.clients.clients_support import (
    API_VERSION,
    DRIVERS,
    Org,
    Seen,
    check_course,
    check_requests,
    course_task,
    expected_rows,
    make_client,
)
from tests.clients.install import python_of

pytestmark = pytest.mark.clients


def test_the_hook_of_airflow_does_the_whole_course(
    tmp_path: Path,
    need_environment: Callable[[str], None],
    record_property: Callable[[str, object], None],
    secure_org: Org,
) -> None:
    need_environment("airflow")
    client = make_client(tmp_path / "client", secure_org)
    connection = {"conn_type": "salesforce", "extra": {"instance_url": secure_org.url, "version": API_VERSION}}
    settings = {
        "AIRFLOW_HOME": str(client.folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_SALESFORCE_DEFAULT": json.dumps(connection),
    }
    task = course_task(client, secure_org)
    seen = Seen(**client.drive(python_of("airflow"), DRIVERS / "airflow_driver.py", task=task, **settings))
    record_property("client", f"apache-airflow-providers-salesforce {seen.version}")
    check_course(seen, secure_org)
    check_requests(secure_org, bulk=True)
    assert seen.extra["tested"][0] is True
    assert seen.extra["written"] == len(expected_rows())
