"""What requests take of the memory of the web process has a bound, and is given back."""

from typing import Any

import pytest

from app.web.load import Load, Overloaded


def test_bodies_share_a_bound_and_give_it_back() -> None:
    load = Load(100)
    with load.body() as first:
        first.grows(60)
        with load.body() as second:
            second.grows(40)
            with pytest.raises(Overloaded) as refused:
                second.grows(1)
            assert (refused.value.code, refused.value.retryable) == ("overloaded", True)
            second.grows(0)
        assert load.octets == 60
    assert load.octets == 0


@pytest.mark.asyncio
async def test_the_body_of_any_request_is_counted_while_it_is_answered() -> None:
    load, seen = Load(100), []

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        seen.append(load.octets)
        await receive()

    chunks = iter([b"x" * 70, b"x" * 70])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    async def send(_message: Any) -> None:
        """Nobody listens."""

    with pytest.raises(Overloaded):
        await load.bounded(app)({"type": "http"}, receive, send)
    assert (seen, load.octets) == ([70], 0)
