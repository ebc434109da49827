"""Live streams: what they say, and who wakes them."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from app.adapters.redis import RUN_CHANGED
from app.web import live
from app.web.live import Mark, Signals, listening, stream

ENVIRONMENT = UUID(int=1)


@dataclass
class Heard:
    channel: str
    message: Any


@pytest.fixture(autouse=True)
def no_quiet(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "QUIET", 0)


def reader(*marks: Any) -> Any:
    left = list(marks)

    async def read() -> Any:
        return left.pop(0) if len(left) > 1 else left[0]

    return read


async def test_a_run_that_ended_meanwhile_is_told_once_and_done() -> None:
    lines = [x async for x in stream(Signals(), ENVIRONMENT, "R", reader(Mark("9", is_final=True)), seen="7")]
    assert [x.split("\n")[0] for x in lines] == [": open", "event: changed", "event: done"]
    assert "id: 9" in lines[1]


async def test_nothing_new_says_nothing(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "POLL_ALONE", 0.001)
    read = reader(Mark("7"), Mark("7"), Mark("7"), Mark("7", is_final=True))
    lines = [x async for x in stream(Signals(), ENVIRONMENT, "R", read, seen="7")]
    assert [x.split("\n")[0] for x in lines] == [": open", "event: done"]


async def test_a_run_that_is_gone_ends_the_stream() -> None:
    lines = [x async for x in stream(Signals(), ENVIRONMENT, "R", reader(None), seen="7")]
    assert lines[-1].startswith("event: done")


async def test_silence_is_broken_by_comments(monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "KEEP_ALIVE", 0)
    monkeypatch.setattr(live, "POLL_ALONE", 0.001)
    lines = [
        x async for x in stream(Signals(), ENVIRONMENT, "R", reader(Mark("7"), Mark("7", is_final=True)), seen="7")
    ]
    assert ": still here\n\n" in lines


async def test_messages_wake_the_streams_of_their_run_only() -> Any:
    heard: asyncio.Queue[Heard] = asyncio.Queue()

    async def subscribe(pattern: Any) -> Any:
        assert pattern == f"{RUN_CHANGED}*"
        while True:
            yield await heard.get()
            heard.task_done()

    signals = Signals(subscribe)
    async with listening(signals):
        with (
            signals.watch(ENVIRONMENT, "A") as mine,
            signals.watch(ENVIRONMENT, "B") as other,
            signals.watch(ENVIRONMENT) as any_run,
        ):
            await heard.put(Heard(f"{RUN_CHANGED}{ENVIRONMENT}", "A"))
            await heard.put(Heard(f"{RUN_CHANGED}{UUID(int=2)}", "B"))
            await heard.join()
            assert (mine.event.is_set(), other.event.is_set(), any_run.event.is_set()) == (True, False, True)
            assert not signals.hears


async def test_after_an_interruption_everybody_looks_again() -> Any:
    connected = asyncio.Event()

    async def subscribe(_pattern: Any) -> Any:
        yield Heard("", None)
        connected.set()
        await asyncio.Event().wait()

    signals = Signals(subscribe)
    with signals.watch(ENVIRONMENT, "A") as watch:
        async with listening(signals):
            await connected.wait()
            assert watch.event.is_set()
            assert signals.hears


async def test_a_stream_too_many_is_asked_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_STREAMS", 1)
    signals = live.Signals()

    async def read() -> live.Mark:
        return live.Mark("1", is_final=True)

    environment_id = ENVIRONMENT
    with signals.watch(environment_id):
        said = [line async for line in live.stream(signals, environment_id, None, read, seen="1")]
        assert "retry: 15000" in "".join(said)
    said = [line async for line in live.stream(signals, environment_id, None, read, seen="1")]
    assert "event: done" in "".join(said)
