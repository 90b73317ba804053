"""simple-salesforce against the twin, over HTTP and over HTTPS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.clients.clients_support import (
    DRIVERS,
    USERNAME,
    Seen,
    check_course,
    check_requests,
    course_task,
    make_client,
    served_org,
)
from tests.clients.install import python_of

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_simple_salesforce_does_the_whole_course(
    tls: bool, tmp_path: Path, need_environment: Callable[[str], None], record_property: Callable[[str, object], None]
) -> None:
    need_environment("simple-salesforce")
    with served_org(tmp_path / "twin", tls=tls) as org:
        client = make_client(tmp_path / "client", org)
        driver = DRIVERS / "simple_salesforce_driver.py"
        seen = Seen(**client.drive(python_of("simple-salesforce"), driver, task=course_task(client, org)))
        record_property("client", f"simple-salesforce {seen.version}")
        check_course(seen, org, deleted_beside=1)  # the one record of the REST calls
        check_requests(org, bulk=True)
        assert seen.extra["sign_ins"] == dict.fromkeys(("soap", "password", "jwt", "client_credentials"), USERNAME)
        assert seen.extra["insert_jobs"] == 3
        assert seen.extra["export_pages"] == 3
        assert seen.extra["one_record"] == "ค"
        assert seen.extra["is_sandbox"] is True
        assert seen.extra["api_usage"] > 20
