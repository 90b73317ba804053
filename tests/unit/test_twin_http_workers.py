"""The count of the twin's worker threads: nobody closes the org's file under one that is still at work."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from forcelift.twin.http_workers import Workers


def test_a_call_gives_its_result_and_is_struck_off() -> None:
    workers = Workers()
    assert anyio.run(workers.run, lambda: 7) == 7
    assert workers.wait_idle(0)


def test_a_call_that_raises_is_struck_off_too() -> None:
    workers = Workers()
    with pytest.raises(ZeroDivisionError):
        anyio.run(workers.run, lambda: 1 // 0)
    assert workers.wait_idle(0)


def test_a_cancelled_request_is_waited_for_until_its_thread_returns() -> None:
    """Goal: a thread outlives the request that the server cancelled, and is waited for all the same.

    Method: cancel a request whose call waits for us, look, let it go, look again.
    """
    workers, began, go_on = Workers(), threading.Event(), threading.Event()
    ended: list[str] = []

    def call() -> None:
        began.set()
        go_on.wait(30)
        ended.append("call")

    async def serve() -> None:
        request = asyncio.ensure_future(workers.run(call))
        await asyncio.to_thread(began.wait, 30)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert not workers.wait_idle(0)
        go_on.set()

    asyncio.run(serve())
    assert workers.wait_idle(30)
    assert ended == ["call"]
