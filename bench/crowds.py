"""The parts with a crowd: a backlog that others must not feel, and sleepers that nobody must feel. Each is run once."""

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncpg

from bench.load import Control, Sent, sending
from bench.measures import DRAIN_S, Bench, Figures, percentiles, saturation
from bench.product import Server

_BATCH = 100
_CONNECTIONS = 4
#: Probes sent to the neighbour before the crowd comes, and the pause between two of them.
_ALONE, _PAUSE_S = 40, 0.02
#: Seconds a backlog may take per run before it counts as stuck; goals are far below.
_SLOWEST_RUN_S = 0.02


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another tenant of the same server, with an app of its own."""

    server: Server
    control: Control


async def backlog(bench: Bench, neighbour: Neighbour | None) -> Figures:
    """Queue many one-step runs at once; meanwhile probe another function of the same tenant, and another tenant.

    The rate of the last tenth beside the second says whether the length of a queue costs anything; the probes' waits
    say whether it costs others anything.
    """
    size = bench.sizes.backlog
    figures: Figures = {}
    if neighbour:
        await neighbour.control.reset()
        alone = await _probe(neighbour.server, neighbour.control, bench, stop=None, count=_ALONE)
        figures |= percentiles("neighbour_alone_ms", alone, (50, 95))
        await neighbour.control.reset()
    await bench.control.reset()
    sent, stop = Sent(), asyncio.Event()
    async with asyncio.TaskGroup() as probing:
        same = probing.create_task(_probe(bench.server, bench.control, bench, stop=stop))
        other = (
            probing.create_task(_probe(neighbour.server, neighbour.control, bench, stop=stop)) if neighbour else None
        )
        try:
            await _queue(bench, size, sent)
            drained = await bench.control.wait("bench-1", len(sent.times), within_s=DRAIN_S + size * _SLOWEST_RUN_S)
        finally:
            stop.set()
    rows = [row for row in await bench.control.report() if row["fn"] == "bench-1"]
    bench.ledger.add(sent, rows)
    if not drained:
        bench.say(f"  backlog: not all of {size:,} runs ended")
    figures |= percentiles("other_function_ms", same.result(), (50, 95))
    if other is not None:
        during = other.result()
        figures |= percentiles("neighbour_ms", during, (50, 95))
        if during and "neighbour_alone_ms_p50" in figures:
            figures["neighbour_growth_ms"] = figures["neighbour_ms_p50"] - figures["neighbour_alone_ms_p50"]
    return figures | _tenths(rows)


async def _queue(bench: Bench, size: int, sent: Sent) -> None:
    """Send `size` events in batches, as fast as they are taken."""
    async with sending(bench.server.url, bench.server.event_key, _CONNECTIONS) as sender:

        async def send_some(count: int) -> None:
            while count > 0:
                took = min(count, _BATCH)
                if await sender.send("bench/bench-1", [bench.tag() for _ in range(took)], sent):
                    count -= took
                else:
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(send_some(size // _CONNECTIONS) for _ in range(_CONNECTIONS)))


async def _probe(
    server: Server, control: Control, bench: Bench, *, stop: asyncio.Event | None, count: int = 10_000
) -> list[float]:
    """Milliseconds from event accepted to first call, of one run at a time, until `stop` is set or `count` were sent."""
    sent = Sent()
    waiting = Control(f"http://{control.address.host}:{control.address.port}")
    try:
        async with sending(server.url, server.event_key, 1) as sender:
            for number in range(1, count + 1):
                if stop is not None and stop.is_set():
                    break
                await sender.send("bench/bench-probe", [bench.tag()], sent)
                if not await waiting.wait("bench-probe", len(sent.times), within_s=DRAIN_S):
                    break
                await asyncio.sleep(_PAUSE_S + 0.003 * (number % 4))
        rows = [row for row in await waiting.report() if row["fn"] == "bench-probe"]
    finally:
        waiting.close()
    bench.ledger.add(sent, rows)
    return [max(0.0, (row["times"][0] - sent.times[row["tag"]][1]) / 1e6) for row in rows if row["tag"] in sent.times]


def _tenths(rows: list[dict[str, Any]]) -> Figures:
    """Runs per second in the second and in the last tenth of a backlog, and the last relative to the second."""
    ends = sorted(row["times"][-1] for row in rows if row["ends"])
    tenth = len(ends) // 10
    if tenth < 10:
        return {}
    second = tenth / ((ends[2 * tenth] - ends[tenth]) / 1e9)
    last = tenth / ((ends[-1] - ends[-1 - tenth]) / 1e9)
    return {"backlog_second_per_s": second, "backlog_last_per_s": last, "backlog_last_to_second": last / second}


async def sleepers(bench: Bench) -> Figures:
    """The step rate with many sleeping runs in the store, beside the rate right before they came."""
    before = (await saturation(bench, "bench-3"))["steps_per_s_bench-3"]
    await _fall_asleep(bench)
    after = (await saturation(bench, "bench-3"))["steps_per_s_bench-3"]
    return {"steps_before_sleepers": before, "steps_with_sleepers": after, "with_sleepers_to_before": after / before}


async def _fall_asleep(bench: Bench) -> None:
    """Send one run to sleep for a month, and copy its rows as often as wanted."""
    sent = Sent()
    async with sending(bench.server.url, bench.server.event_key, 1) as sender:
        await sender.send("bench/bench-sleep", [bench.tag()], sent)
    connection = await asyncpg.connect(bench.server.database_url)
    try:
        async with asyncio.timeout(DRAIN_S):
            while not (run := await connection.fetchval(_ASLEEP)):  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.05)
        async with connection.transaction():
            for table, changed in _COPIED.items():
                names = [row["attname"] for row in await connection.fetch(_COLUMNS, table)]
                values = ", ".join(changed.get(name, name) for name in names)
                # Names come from the catalogue and from the table below.
                statement = (
                    f"insert into {table} ({', '.join(names)}) select {values} from {table}, generate_series(1, $2) n "
                    f"where {'id' if table == 'runs' else 'run_id'} = $1"
                )
                await connection.execute(statement, run, bench.sizes.sleepers, timeout=120)
        for table in _COPIED:
            await connection.execute(f"analyze {table}", timeout=120)
    finally:
        await connection.close()


_ASLEEP = """
  select i.run_id from items i join runs r on r.id = i.run_id
  where i.kind = 'sleep' and r.event_name = 'bench/bench-sleep' limit 1
"""
_COLUMNS = """
  select attname from pg_attribute
  where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum
"""
#: The first twelve digits of a run's id are its time, which decides the partition.
_NEW_RUN = "(left(replace({}::text, '-', ''), 12) || lpad(to_hex(n), 20, '0'))::uuid"
_COPIED: dict[str, dict[str, str]] = {
    "runs": {"id": _NEW_RUN.format("id")},
    "steps": {"run_id": _NEW_RUN.format("run_id")},
    "history": {"run_id": _NEW_RUN.format("run_id")},
    "items": {
        "run_id": _NEW_RUN.format("run_id"),
        "id": "md5(id::text || n)::uuid",
        "due_at": "due_at + n * interval '10 seconds'",
    },
}
