"""Where cases are played: one Stepwell in one mode, the app of every wanted column beside it, all cases at the same time.

What takes long in a case is mostly waiting, so a hundred of them take hardly longer than the longest.
"""

import asyncio
import json
import traceback
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import httpx2

from app.domain.ids import to_ulid
from app.supervise.state import free_port
from tests.processes import await_so, environ, running, status_of
from tests.protocol.matrix.catalogue import CASES, Case
from tests.protocol.matrix.columns import COLUMNS, Column, partner_of
from tests.protocol.matrix.play import WITHIN, Play, Troupe, Web
from tests.protocol.matrix.provider import playing
from tests.protocol.sdks import SERVE_PATH
from tests.protocol.server import Server, Tenant

#: Seconds between two looks at the ledgers and at what has ended.
_LOOK = 0.05
#: Cases at the same time: what the apps of one machine answer without cases being late for their own timeouts.
_AT_ONCE = 80
#: Seconds one case may take: several waits of a loaded machine.
_CASE_WITHIN = 2 * WITHIN
#: Characters of a line that a failure tells.
_TOLD = 500
_ENDED = "select id, event_id from runs where environment_id = $1 and ended_at is not null and ended_at >= $2"
_WAITING = (
    "select r.event_id from pauses p join runs r on r.id = p.run_id where p.environment_id = $1 and p.kind <> 'invoke'"
)


@dataclass(frozen=True)
class Outcome:
    """How a case went: None, or what went wrong."""

    failure: str | None


Outcomes = dict[tuple[str, str], Outcome]
"""By column and case."""


def perform(server: Server, wanted: Iterable[tuple[str, str]], folder: Path) -> Outcomes:
    """Play the wanted cases (column, case) and say how each went."""
    wanted = list(wanted)
    tenant = server.tenant()
    playing_columns = {COLUMNS[name] for name, _ in wanted}
    on_stage = playing_columns | {partner_of(column) for column in playing_columns}
    with ExitStack() as stack:
        web = stack.enter_context(playing())
        troupes = {column.name: _app(column, server, tenant, web, folder, stack) for column in on_stage}
        for troupe in troupes.values():
            _register(troupe)
        return asyncio.run(_play(server, tenant, troupes, wanted))


def _app(column: Column, server: Server, tenant: Tenant, web: Web, folder: Path, stack: ExitStack) -> Troupe:
    """Start the app of a column with nothing but the settings the SDKs document."""
    column.prepare()
    port, ledger, catalogue = free_port(), folder / f"{column.name}.jsonl", folder / f"{column.name}.json"
    catalogue.write_text(_written(column, web), encoding="utf-8")
    ledger.touch()
    settings = {"PORT": str(port), "SCRIPTED": str(catalogue), "SCRIPTED_LEDGER": str(ledger)}
    settings |= {"SCRIPTED_APP": column.app_id, **column.settings}
    if server.mode == "dev":
        settings["INNGEST_DEV"] = server.base_url
    else:
        settings["INNGEST_BASE_URL"] = server.base_url
        settings["INNGEST_EVENT_KEY"] = tenant.event_key
        settings["INNGEST_SIGNING_KEY"] = tenant.signing_key
    process = stack.enter_context(running(f"matrix-{column.name}", column.command(), environ(**settings), folder))
    base_url = f"http://127.0.0.1:{port}"
    troupe = Troupe(column, base_url, ledger, process.log, server.base_url, tenant.signing_key or None, web)
    troupe.needs = [*server.processes, process]
    return troupe


def _written(column: Column, web: Web) -> str:
    """The column's functions as its app reads them."""
    text = json.dumps([function.to_json() for function in column.functions()])
    names = {"@@": column.name, "@app@": column.app_id, "@other@": partner_of(column).app_id}
    for placeholder, name in {**names, "@web@": f"{web.base_url}/{column.name}"}.items():
        text = text.replace(placeholder, name)
    return text


def _register(troupe: Troupe) -> None:
    """Let the app tell its functions, as a deploy hook does."""
    await_so(lambda: status_of(f"{troupe.base_url}{SERVE_PATH}"), f"{troupe.column.app_id} answers", troupe.needs)
    paths = [SERVE_PATH, "/api/streaming"] if "streaming" in troupe.column.has else [SERVE_PATH]
    for path in paths:
        answer = httpx2.put(f"{troupe.base_url}{path}", timeout=60.0)
        assert answer.status_code == 200, f"{troupe.column.name}: {answer.text}"


async def _play(server: Server, tenant: Tenant, troupes: dict[str, Troupe], wanted: list[tuple[str, str]]) -> Outcomes:
    connection = await asyncpg.connect(server.database_url)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64, force_close=True)) as http:
        for troupe in troupes.values():
            troupe.http = http
            troupe.database_url = server.database_url
        watch = asyncio.create_task(_watch(connection, tenant, list(troupes.values())))
        try:
            room = asyncio.Semaphore(_AT_ONCE)
            plays = [_one(troupes[column], CASES[name], room) for column, name in wanted]
            outcomes = await asyncio.gather(*plays)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await connection.close()
    return dict(zip(wanted, outcomes, strict=True))


async def _one(troupe: Troupe, case: Case, room: asyncio.Semaphore) -> Outcome:
    play = Play(troupe, case.name)
    try:
        async with room:
            await asyncio.wait_for(case.play(play), _CASE_WITHIN)
    except Exception:  # noqa: BLE001 - whatever goes wrong in a case is told by its test
        noted = "\n".join(str(line)[:_TOLD] for line in play.lines())
        return Outcome(f"{traceback.format_exc(limit=-3)[-3 * _TOLD :]}\nnoted:\n{noted[-5 * _TOLD :]}")
    return Outcome(None)


async def _watch(connection: asyncpg.Connection, tenant: Tenant, troupes: list[Troupe]) -> None:
    """Read what apps note and which runs end or wait, and wake those who wait for it."""
    read = {troupe.column.name: 0 for troupe in troupes}
    ended: dict[str, list[str]] = {}
    environment = tenant.scope.environment_id
    known: set[str] = set()
    since = await connection.fetchval("select now() - interval '1 minute'")
    while True:
        for row in await connection.fetch(_ENDED, environment, since):
            run_id = to_ulid(row["id"])
            if run_id not in known:
                known.add(run_id)
                ended.setdefault(to_ulid(row["event_id"]), []).append(run_id)
        since = await connection.fetchval("select now() - interval '5 seconds'")
        waiting = {to_ulid(row["event_id"]) for row in await connection.fetch(_WAITING, environment)}
        for troupe in troupes:
            read[troupe.column.name] = _read_on(troupe, read[troupe.column.name])
            troupe.ended, troupe.waiting = ended, waiting
            async with troupe.changed:
                troupe.changed.notify_all()
        await asyncio.sleep(_LOOK)


def _read_on(troupe: Troupe, offset: int) -> int:
    """Take whole lines of the ledger from an offset on; gives the next one."""
    with troupe.ledger.open("rb") as file:
        file.seek(offset)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    troupe.lines += [json.loads(line) for line in whole.splitlines()]
    return offset + len(whole)
