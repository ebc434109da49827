"""Both looks of a wait go on past their first slice: more waits, or more events, than one statement gives."""

import json
from datetime import timedelta
from typing import Any

import pytest

from app.domain.matching import stored_wait
from app.domain.run.happenings import Resumed
from app.engine.waits import recheck, waits_ended_by
from tests.integration.engine.stage import Asked, ops, staged, waits

RUNS = 7
#: Slices of one, of some, of exactly as many as there are, and of more.
ROOMS = (1, 2, RUNS, RUNS + 1)


def _wait(asked: Asked) -> object:
    """Three of four compare a value with theirs, which has an index; the others take every event."""
    n = asked.event["data"]["n"]
    return ops(
        waits("w", "paid", "1h", None if n % 4 == 3 else "async.data.all == true && async.data.n != event.data.n")
    )


async def test_an_event_finds_every_wait_however_many_a_slice_holds(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("shop-wait", _wait, event="made")
        await stage.sync()
        await stage.start()
        await stage.send_all([{"name": "made", "data": {"n": n}} for n in range(RUNS)])

        async def all_wait() -> bool:
            count = "select count(*) = $2 from pauses where environment_id = $1"
            return bool(await stage.pool.fetchval(count, stage.scope.environment_id, RUNS))

        await stage.until(all_wait)
        async with stage.pool.acquire() as connection:
            received_at = await connection.fetchval("select clock() + interval '1 second'")
            rows = [
                {
                    "correlation": None,
                    "has_waits": name == "paid",
                    "environment_id": stage.scope.environment_id,
                    "name": name,
                    "payload": json.dumps({"name": name, "data": {"all": True, "n": n}}),
                    "received_at": received_at,
                }
                for name, n in (("paid", 0), ("sent", 1), ("paid", 2))
            ]
            found = {
                room: [(place, run_id) async for place, run_id, _ in waits_ended_by(connection, rows, room=room)]
                for room in ROOMS
            }
            waiting = {r["run_id"]: r["n"] for r in await connection.fetch(_WAITING)}
        for room in ROOMS:
            places = [place for place, _ in found[room]]
            assert places == sorted(places), "events come in their order"
            for place, n in ((0, 0), (1, None), (2, 2)):
                ended = sorted(waiting[run_id] for of, run_id in found[room] if of == place)
                assert ended == ([] if n is None else [other for other in range(RUNS) if other != n]), (room, place)


_WAITING = """
select p.run_id, (e.payload::jsonb -> 'data' ->> 'n')::int as n from pauses p join runs r on r.id = p.run_id
join events e on e.environment_id = r.environment_id and e.id = r.event_id and e.received_at = r.event_received_at
"""


@pytest.mark.parametrize("is_together", [True, False], ids=["of one request", "one by one"])
async def test_a_wait_finds_its_event_however_many_came_before_it(database: str, is_together: bool) -> None:
    async with staged(database) as stage:
        since = await stage.pool.fetchval("select clock()")
        listed = [{"name": "paid", "data": {"n": n}} for n in range(RUNS)]
        for sent in [listed] if is_together else [[one] for one in listed]:
            await stage.send_all(sent)

        async def look(n: int, room: int, within: timedelta | None = None) -> Any:
            pause = {
                "kind": "wait_for_event",
                "step_key": "w",
                "environment_id": stage.scope.environment_id,
                "event_name": "paid",
                "requested_at": since,
                "expires_at": None if within is None else since + within,
                "expression": stored_wait(f"async.data.n == {n}", b'{"data":{}}').expression,
            }
            async with stage.pool.acquire() as connection:
                return await recheck(connection, pause, room=room)

        for room in ROOMS:
            for n in range(RUNS):
                found = await look(n, room)
                assert isinstance(found, Resumed)
                assert json.loads(found.memo)["data"]["n"] == n
            assert await look(RUNS, room) is None
            assert await look(RUNS - 1, room, within=timedelta(0)) is None
