"""While clients run, nothing but this machine can be reached."""

from __future__ import annotations

import errno
import os
import socket

import pytest

pytestmark = pytest.mark.clients


def test_clients_can_reach_this_machine_only() -> None:
    if os.environ.get("FORCELIFT_LOOPBACK_ONLY") != "1":
        pytest.skip("the network is not closed off here; `.ci/loopback-only` does it where the system allows it")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
    # An address that is reserved for documentation: where there is a network, the attempt would not fail at once.
    with pytest.raises(OSError) as refused:
        socket.create_connection(("192.0.2.1", 443), timeout=5)
    assert refused.value.errno == errno.ENETUNREACH
