"""Who uses Stepwell during a storm, and what it was promised: the ledger the audit holds against the rows.

Every request is sent again until it is acknowledged, with the same seed header, as SDKs do; some are given up after one
try, of which nothing may then be half there. What a program waits for is given once the wait is seen to be open.
"""

import asyncio
import os
import random
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp

from app.domain.ids import parse_ulid, to_ulid
from tests.chaos.storm.app import BROKEN, digest
from tests.chaos.storm.programs import FOREVER_S, Maker, payload
from tests.chaos.storm.yard import Yard

TRIES = 20
"""Retries of ordinary functions: as many as there may be, so that only a bug makes them fail."""
KINDS = {
    "steady": 40,
    "saving": 20,
    "narrow": 12,
    "throttled": 4,
    "victim": 6,
    "late": 4,
    "fragile": 3,
    "batch": 6,
    "debounce": 4,
    "rated": 4,
}
"""Functions that events start, and how often."""
NARROW = 3
"""Limit of the function whose calls are limited."""


def functions(url: str) -> list[dict[str, Any]]:
    """What the app registers (protocol 8)."""
    more: dict[str, dict[str, Any]] = {
        "narrow": {"concurrency": [{"limit": NARROW}]},
        "throttled": {"throttle": {"limit": 5, "period": "1s", "burst": 2}},
        "victim": {"cancel": [{"event": "storm/stop", "if": "event.data.key == async.data.key"}]},
        "late": {"timeouts": {"finish": "5s"}},
        "batch": {"batchEvents": {"maxSize": 5, "timeout": "2s"}},
        "debounce": {"debounce": {"period": "1s", "key": "event.data.key"}},
        "rated": {"rateLimit": {"limit": 2, "period": "10s", "key": "event.data.key"}},
        "small": {"triggers": [{"event": "storm/small"}]},
        "odd": {"triggers": [{"event": "storm/small", "expression": "event.data.odd == true"}]},
        "child": {"triggers": []},
        "tick": {"triggers": [{"cron": "* * * * *"}]},
    }
    made = []
    for name in (*KINDS, "small", "odd", "child", "tick"):
        config = {"triggers": [{"event": f"storm/{name}"}]} | more.get(name, {})
        step = {"id": "step", "name": "step", "retries": {"attempts": 1 if name == "fragile" else TRIES}}
        step["runtime"] = {"type": "http", "url": f"{url}?fnId=storm-{name}&stepId=step"}
        made.append({"id": f"storm-{name}", "name": name, "steps": {"step": step}, **config})
    return made


@dataclass(slots=True)
class Sent:
    """One request to the event API."""

    names: list[str]
    cids: list[str]
    ids: list[UUID] = field(default_factory=list)
    acked_at: float = 0.0
    is_given_up: bool = False


@dataclass(slots=True)
class Client:
    """All users together. `run` sends until `is_over`; `serve` answers waits until it is cancelled."""

    yard: Yard
    dice: random.Random
    per_s: float
    sent: list[Sent] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    #: Open waits that were seen and answered: (run, step) → when the answer was acknowledged.
    answers: dict[tuple[UUID, str], float] = field(default_factory=dict)
    #: Runs whose cancellation was acknowledged, by the API or by an event, and when.
    cancelled: dict[UUID, float] = field(default_factory=dict)
    may_be_cancelled: set[UUID] = field(default_factory=set)
    #: New run → the run it repeats, with what its row was before.
    replays: dict[UUID, tuple[UUID, str]] = field(default_factory=dict)
    #: Seconds from "the database is back" to the first acknowledged event.
    back_s: list[float] = field(default_factory=list)
    is_over: bool = False
    _http: aiohttp.ClientSession | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _seen: set[tuple[UUID, str]] = field(default_factory=set)
    _count: int = 0

    @property
    def http(self) -> aiohttp.ClientSession:
        """One client for all."""
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=6))
        return self._http

    @property
    def bearer(self) -> dict[str, str]:
        """What calls of the API carry."""
        return {"authorization": f"Bearer {self.yard.keys['signing_key']}"}

    async def register(self) -> None:
        """Tell Stepwell what functions there are."""
        url = self.yard.app_url
        body = {
            "url": url,
            "appName": "storm",
            "deployType": "ping",
            "framework": "storm",
            "sdk": "storm:v0.1.0",
            "v": "0.1",
        }
        body |= {"functions": functions(url)}  # type: ignore[dict-item]
        await self.insist("post", "/fn/register", body)

    async def run(self) -> None:
        """Send events at a steady pace, whatever becomes of them."""
        names, weights = list(KINDS), list(KINDS.values())
        while not self.is_over:
            many = self.dice.choice([1, 1, 1, 2, 5])
            self._spawn(self._start([self.dice.choices(names, weights)[0] for _ in range(many)]))
            await asyncio.sleep(self.dice.uniform(0.2, 1.8) / self.per_s)

    async def finish(self) -> None:
        """Wait until everything sent is acknowledged, and end what a request that was given up started nevertheless."""
        self.is_over = True
        while self._tasks:
            await asyncio.wait(self._tasks)
        doubtful = [cid for sent in self.sent if sent.is_given_up for cid in sent.cids if cid.startswith("victim-")]
        for row in await self._insist_on_rows("select id, client_id from events where client_id = any($1)", doubtful):
            self.did["events stored though their request was given up"] += 1
            self._spawn(self._stop(UUID(int=row["id"].int), row["client_id"]))
        while self._tasks:
            await asyncio.wait(self._tasks)

    def undone(self) -> list[str]:
        """Where in this file the tasks stand that have not come to their end, innermost last."""
        return sorted(" > ".join(_stands(task.get_coro())) for task in self._tasks)

    async def close(self) -> None:
        """End what is still going on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def insist(self, method: str, path: str, body: Any, *, until: tuple[int, ...] = (200,)) -> tuple[int, Any]:
        """Call the API until it answers with one of `until`."""
        said = ""
        while True:
            try:
                url = f"{self.yard.web_url}{path}"
                async with self.http.request(method, url, json=body, headers=self.bearer) as answer:
                    self._look_at(answer)
                    if answer.status in until:
                        return answer.status, await answer.json(content_type=None)
                    said = f"{answer.status} {(await answer.text())[:200]}"
                    if answer.status in range(400, 500) and answer.status != 429:
                        self.odd.append(f"{method} {path} answered {said}")
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                said = repr(error)
            await asyncio.sleep(0.3)

    async def send(self, events: list[dict[str, Any]], *, give_up: bool = False) -> Sent:
        """Send events with one request until they are acknowledged, or once."""
        sent = Sent([e["name"] for e in events], [e.get("id", "") for e in events], is_given_up=give_up)
        self.sent.append(sent)
        seed = f"{time.time_ns() // 1_000_000},{b64encode(os.urandom(10)).decode()}"
        ids = await self._post(events, seed)
        while ids is None and not give_up:
            await asyncio.sleep(0.3)
            self.did["event requests repeated"] += 1
            ids = await self._post(events, seed)
        if ids is None:
            self.did["event requests given up"] += 1
            return sent
        sent.acked_at, sent.ids, sent.is_given_up = time.time(), ids, False
        if self.dice.random() < 0.1:
            again = await self._post(events, seed)
            if again is not None:
                self.did["event requests repeated though acknowledged"] += 1
                if again != ids:
                    self.odd.append(f"I4: the same request again got other ids: {ids} {again}")
        return sent

    async def _post(self, events: list[dict[str, Any]], seed: str) -> list[UUID] | None:
        headers = {"x-inngest-event-id-seed": seed}
        try:
            url = f"{self.yard.web_url}/e/{self.yard.keys['event_key']}"
            async with self.http.post(url, json=events, headers=headers) as answer:
                self._look_at(answer)
                if answer.status == 200:
                    return [UUID(int=(parse_ulid(x) or UUID(int=0)).int) for x in (await answer.json())["ids"]]
        except (aiohttp.ClientError, TimeoutError, OSError):
            self.did["requests without an answer"] += 1
        return None

    def _look_at(self, answer: aiohttp.ClientResponse) -> None:
        """503 always says when to come again, and nothing else goes wrong."""
        if answer.status == 503:
            self.did["503 with Retry-After"] += 1
            if "retry-after" not in answer.headers:
                self.odd.append(f"503 without Retry-After at {answer.url.path[:4]}")
        elif answer.status >= 500:
            self.odd.append(f"{answer.status} at {answer.method} {answer.url.path[:20]}")

    async def _start(self, names: list[str]) -> None:
        events = [self._event(name) for name in names]
        sent = await self.send(events, give_up=self.dice.random() < 0.05)
        if self.dice.random() < 0.05 and sent.ids:
            self.did["event ids sent twice"] += 1
            await self.send(events)
        for name, event, event_id in zip(names, events, sent.ids, strict=False):
            if name == "victim":
                await self._stop(event_id, event["data"]["key"])
            elif name in ("steady", "narrow") and self.dice.random() < 0.04:
                await self._cancel(event_id)
            elif name == "steady" and self.dice.random() < 0.04:
                await self._replay(event_id)

    def _event(self, name: str) -> dict[str, Any]:
        self._count += 1
        cid = f"{name}-{self._count}"
        value = payload(self.dice)
        data: dict[str, Any] = {"x": value, "h": digest(value), "key": f"k{self.dice.randint(1, 3)}"}
        maker = Maker(self.dice, cid)
        if name in ("steady", "saving", "narrow", "throttled"):
            data["program"] = maker.program(self.dice.randint(1, 5))
        elif name == "victim":
            data |= {"key": cid, "program": [maker.node("run") | {"fails": 0}, _never(maker, cid)]}
        elif name == "late":
            data["program"] = [maker.node("sleep") | {"s": int(FOREVER_S)}]
        elif name == "fragile":
            data["program"] = BROKEN
        return {"name": f"storm/{name}", "id": cid, "data": data}

    async def _stop(self, event_id: UUID, key: str) -> None:
        """End a run that would never end, by an event or by the API."""
        run_id = await self._run_of(event_id)
        if run_id is None:
            return
        await asyncio.sleep(self.dice.uniform(0, 3))
        self.may_be_cancelled.add(run_id)
        if self.dice.random() < 0.5:
            self.did["cancelled by event"] += 1
            await self.send([{"name": "storm/stop", "data": {"key": key}}])
        else:
            await self._cancel_run(run_id)

    async def _cancel(self, event_id: UUID) -> None:
        run_id = await self._run_of(event_id)
        if run_id is not None:
            await asyncio.sleep(self.dice.uniform(0, 4))
            await self._cancel_run(run_id)

    async def _cancel_run(self, run_id: UUID) -> None:
        self.may_be_cancelled.add(run_id)
        await self.insist("delete", f"/v1/runs/{to_ulid(run_id)}", None)
        self.cancelled[run_id] = time.time()
        self.did["cancelled by the API"] += 1

    async def _replay(self, event_id: UUID) -> None:
        """Make an ended run again, once its row can be compared."""
        run_id = await self._run_of(event_id, "and ended_at is not null")
        if run_id is None:
            return
        before = await self.row_of(run_id)
        _, answer = await self.insist("post", f"/v2/runs/{to_ulid(run_id)}/rerun", {})
        self.did["runs made again"] += 1
        new = parse_ulid(answer["data"]["id"])
        assert new is not None
        self.replays[UUID(int=new.int)] = (run_id, before)

    async def row_of(self, run_id: UUID) -> str:
        """A run with its steps as one text (I11)."""
        ask = """select r::text || coalesce((select string_agg(s::text, '' order by s.step_key) from steps s
                 where s.run_id = r.id), '') as row from runs r where r.id = $1"""
        return str((await self._insist_on_rows(ask, run_id))[0]["row"])

    async def _insist_on_rows(self, ask: str, *values: Any) -> list[Any]:
        """Ask the database until it answers."""
        rows: list[Any] | None = None
        while rows is None:
            rows = await self.yard.ask(ask, *values)
            await asyncio.sleep(0.3 if rows is None else 0.0)
        return rows

    async def _run_of(self, event_id: UUID, more: str = "") -> UUID | None:
        """The run an event started, as soon as there is one; none when the storm is over before."""
        for _ in range(1500):
            found = await self.yard.ask(f"select id from runs where event_id = $1 {more}", event_id)
            found = found or await self.yard.ask(f"{_RUN_OF_THE_SAME} {more}", event_id)
            if found:
                return UUID(int=found[0]["id"].int)
            if self.is_over and more:
                return None
            await asyncio.sleep(0.4)
        return None

    async def serve(self) -> None:
        """Look for open waits and give them what they wait for."""
        ask = "select run_id, step_key, match_value, signal from pauses where kind in ('wait_for_event', 'wait_for_signal')"
        while True:
            for row in await self.yard.ask(ask) or ():
                self._give(UUID(int=row["run_id"].int), row["step_key"], row["match_value"], row["signal"])
            await asyncio.sleep(0.4)

    def _give(self, run_id: UUID, step: str, match: str | None, signal: str | None) -> None:
        if (run_id, step) in self._seen:
            return
        self._seen.add((run_id, step))
        key = (match or "").removeprefix("s:")
        if signal:
            self._spawn(self._signal(run_id, step, signal))
        elif key[:1] in ("a", "r"):
            self._spawn(self._answer(run_id, step, key))

    async def _answer(self, run_id: UUID, step: str, key: str) -> None:
        if key[0] == "r":
            await asyncio.sleep(self.dice.uniform(0, 3))
        sent = await self.send([{"name": "storm/answer", "data": {"key": key}}])
        self.did["waits answered" if key[0] == "a" else "waits answered about when they end"] += 1
        if key[0] == "a":
            self.answers[run_id, step] = sent.acked_at

    async def _signal(self, run_id: UUID, step: str, name: str) -> None:
        status, _ = await self.insist("post", "/v1/signals", {"signal": name, "data": 1}, until=(200, 404))
        self.did["signals taken" if status == 200 else "signals found nobody"] += 1
        if status == 404:
            # Nobody waits any more, or the answer to the one that was taken got lost: the next look decides.
            self._seen.discard((run_id, step))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.odd.append(f"the client failed: {error!r}")


#: Of two events with one id either may start the run: the older one may still be claimed by somebody who is cut off.
_RUN_OF_THE_SAME = """
  select r.id from dispositions d join events e on e.id = d.event_id
  join events other on other.client_id = e.client_id and other.name = e.name join runs r on r.event_id = other.id
  where d.event_id = $1 and d.outcome = 'duplicate'
"""
_TELLING = ("method", "path", "said", "event_id", "run_id", "names", "more", "status")
"""Local variables that say what a task is waiting for."""


def _never(maker: Maker, cid: str) -> dict[str, Any]:
    return maker.node("wait") | {"key": f"w:never {cid}", "s": FOREVER_S}


def _stands(coroutine: Any) -> list[str]:
    found = []
    while coroutine is not None and hasattr(coroutine, "cr_frame"):
        frame = coroutine.cr_frame
        if frame is not None and frame.f_code.co_filename == __file__:
            known = {k: v for k, v in frame.f_locals.items() if k in _TELLING}
            found.append(f"{coroutine.__name__}:{frame.f_lineno} {known}")
        coroutine = coroutine.cr_await
    return found
