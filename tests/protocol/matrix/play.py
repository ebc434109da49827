"""What a case is given: one app of one SDK against a running server, with what it noted and how its runs ended.

Nothing waits for a time: lines of the ledger and ends of runs wake whoever waits for them (see `stage`).
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from tests.processes import Process
from tests.protocol.matrix.columns import Column
from tests.protocol.matrix.probe import PROBE
from tests.protocol.matrix.script import Scripted

Line = dict[str, Any]
#: Seconds for anything to become so on a machine that many share.
WITHIN = 120.0
_PROBES = count()
_HELD = count()


class Troupe:
    """The running app of a column, shared by all its cases."""

    def __init__(
        self, column: Column, base_url: str, ledger: Path, log: Path, api_url: str, token: str | None, web: "Web"
    ) -> None:
        self.column = column
        self.base_url = base_url
        self.log = log
        self.api_url = api_url
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.web = web
        self.lines: list[Line] = []
        self.ended: dict[str, list[str]] = {}
        """Event id to the ids of its ended runs."""
        self.waiting: set[str] = set()
        """Events whose runs wait for an event or a signal."""
        self.changed = asyncio.Condition()
        self.ledger = ledger
        self.needs: list[Process] = []
        self.database_url = ""
        self.http: aiohttp.ClientSession


class Web:
    """What a web server that plays a provider was asked, by path."""

    def __init__(self) -> None:
        self.base_url = ""
        self.asked: dict[str, list[dict[str, Any]]] = {}


class Play:
    """One case with one app."""

    def __init__(self, troupe: Troupe, name: str) -> None:
        self._troupe = troupe
        self.key = name
        self.column = troupe.column

    # What the app and the API are asked for

    async def send(self, what: Scripted | str, data: dict[str, Any] | None = None, **fields: Any) -> str:
        """Send an event through the SDK, by default with this case's key; gives its internal id."""
        return (await self.send_all(what, [data or {}], **fields))[0]

    async def send_all(self, what: Scripted | str, data: list[dict[str, Any]], **fields: Any) -> list[str]:
        """Send several events of one name in one request; gives their internal ids."""
        name = self._named(what.event if isinstance(what, Scripted) else f"@@/{what}")
        body = [{"name": name, "data": {"key": self.key, **one}, **fields} for one in data]
        async with self._troupe.http.post(f"{self._troupe.base_url}/send", json=body) as answer:
            assert answer.status == 202, await answer.text()
            ids: list[str] = (await answer.json())["ids"]
        return ids

    async def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask the API as the tenant's own programs do; gives status and body."""
        url = f"{self._troupe.api_url}{path}"
        async with self._troupe.http.request(method, url, json=body, headers=self._troupe.headers) as answer:
            return answer.status, await answer.json() if await answer.read() else None

    async def ends(self, event_id: str, runs: int = 1) -> list[dict[str, Any]]:
        """The runs an event started, as soon as so many have ended."""
        await self._until(lambda: len(self._troupe.ended.get(event_id, ())) >= runs, f"{runs} runs of {event_id} end")
        found = [await self.api("GET", f"/v1/runs/{run_id}") for run_id in self._troupe.ended[event_id]]
        return [body["data"] for _, body in found]

    async def run(self, function: Scripted, data: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send the event of a function and give its run when it has ended."""
        (run,) = await self.ends(await self.send(function, data, **fields))
        return run

    async def completes(self, function: Scripted, data: dict[str, Any] | None = None, **fields: Any) -> Any:
        """The same for a run that must complete; gives its output."""
        run = await self.run(function, data, **fields)
        assert run["status"] == "Completed", run
        return run["output"]

    async def runs_of(self, event_id: str) -> list[dict[str, Any]]:
        """The runs an event has started so far."""
        status, body = await self.api("GET", f"/v1/events/{event_id}/runs")
        assert status == 200, body
        runs: list[dict[str, Any]] = body["data"]
        return runs

    async def is_open(self, event_id: str) -> bool:
        """Whether an event has one run, which goes on: it is called running when its first call has been answered."""
        return [run["status"] in {"Scheduled", "Running"} for run in await self.runs_of(event_id)] == [True]

    @contextmanager
    def held(self) -> Iterator[str]:
        """Give the name of a file that is not there until the block ends: steps that run `until` it are held."""
        file = self._troupe.ledger.with_suffix(f".held-{next(_HELD)}")
        try:
            yield str(file)
        finally:
            file.touch()

    async def clock_reaches(self, function: Scripted) -> None:
        """Let the minute that has just begun be the next time of a function's schedule, as if the clock got there now."""
        connection = await asyncpg.connect(self._troupe.database_url)
        try:
            await connection.execute(
                "update schedules set next_due = date_trunc('minute', now())"
                " from functions f where f.id = function_id and f.slug = $1",
                f"{self.column.app_id}-{function.id}",
            )
        finally:
            await connection.close()

    async def taken(self) -> None:
        """Wait until all events sent so far have been looked at: they are taken in order, so one more is sent."""
        await self.completes(PROBE, {"key": f"probe {next(_PROBES)}"})

    # What the app noted

    def lines(self, *, key: str | None = None, at: str | None = None) -> list[Line]:
        """What the app noted for a key, in the order it happened."""
        wanted = self.key if key is None else key
        found = [line for line in self._troupe.lines if line["key"] == wanted and at in {None, line["at"]}]
        return sorted(found, key=lambda line: line["order"])

    def steps(self, key: str | None = None) -> list[str]:
        """The steps that were executed, in order, one entry for each time."""
        return [line["what"] for line in self.lines(key=key, at="step")]

    def attempts(self, what: str) -> list[int]:
        """The attempts of a step or note, in order."""
        return [line["attempt"] for line in self.lines() if line["what"] == what]

    def noted(self, what: str, key: str | None = None) -> Any:
        """What the function's own code saw at the last time it noted this."""
        return [line["value"] for line in self.lines(key=key, at="note") if line["what"] == what][-1]

    def moment(self, what: str, at: str = "step") -> int:
        """When something was noted first, in milliseconds."""
        ms: int = next(line["ms"] for line in self.lines(at=at) if line["what"] == what)
        return ms

    async def until_noted(self, what: str, *, key: str | None = None, times: int = 1) -> None:
        """Wait until the app has noted something for a key."""

        def is_so() -> bool:
            found = [line for line in self.lines(key=key) if line["what"] == what]
            return len(found) >= times

        await self._until(is_so, f"{times} x {what}")

    async def until_waiting(self, event_id: str) -> None:
        """Wait until a run that an event started waits for an event or a signal."""
        await self._until(lambda: event_id in self._troupe.waiting, f"the run of {event_id} waits")

    async def until_run(self, event_id: str) -> str:
        """Wait until an event has a run; gives its id."""
        for _ in range(int(WITHIN * 5)):
            if runs := await self.runs_of(event_id):
                run_id: str = runs[0]["run_id"]
                return run_id
            await asyncio.sleep(0.2)  # Polling another process, bounded.
        raise AssertionError(f"event {event_id} starts no run")

    def logged(self) -> str:
        """What the app wrote to its log."""
        return self._troupe.log.read_text(encoding="utf-8", errors="replace")

    def asked_of_web(self, path: str) -> list[dict[str, Any]]:
        """The requests a provider received at a path."""
        return self._troupe.web.asked.get(f"/{self.column.name}{path}", [])

    def _named(self, text: str) -> str:
        return text.replace("@@", self.column.name)

    async def _until(self, is_so: Callable[[], Any], what: str) -> None:
        async with self._troupe.changed:
            try:
                await asyncio.wait_for(self._troupe.changed.wait_for(is_so), WITHIN)
            except TimeoutError:
                raise AssertionError(f"{what}: not within {WITHIN:.0f} s; noted {self.lines()}") from None
