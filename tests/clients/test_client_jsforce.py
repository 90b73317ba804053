"""jsforce against the twin, over HTTP and over HTTPS."""

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
from tests.clients.install import FOLDER, node_folder

pytestmark = pytest.mark.clients


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_jsforce_does_the_whole_course(
    tls: bool, tmp_path: Path, need_environment: Callable[[str], None], record_property: Callable[[str, object], None]
) -> None:
    need_environment("node")
    with served_org(tmp_path / "twin", tls=tls) as org:
        client = make_client(tmp_path / "client", org, node_folder())
        task = course_task(client, org)
        packages = str(FOLDER / "node")
        seen = Seen(**client.drive("node", DRIVERS / "jsforce_driver.mjs", task=task, CLIENT_PACKAGES=packages))
        record_property("client", f"jsforce {seen.version}")
        check_course(seen, org, deleted_beside=2)  # of the single record and of the collection
        check_requests(org, bulk=True)
        signed_in = dict.fromkeys(("soap", "password", "client_credentials"), USERNAME)
        assert seen.extra["sign_ins"] == {**signed_in, "wrong": "INVALID_LOGIN"}
        assert seen.extra["one_record"] == {"created": False, "name": "ค"}
        collections = seen.extra["collections"]
        assert (collections["success"], collections["code"], collections["removed"]) == (
            [True, False],
            "STRING_TOO_LONG",
            True,
        )
        assert collections["upserted"] == [[True, False, []], [False, None, ["STRING_TOO_LONG"]]]
        assert seen.extra["composite"] == [200, 200]
        assert seen.extra["unprocessed"] == 0
        assert seen.extra["regions"] == 3
        assert seen.extra["api_usage"] > 20
