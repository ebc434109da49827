"""The app under the bench speaks the protocol: one step per call, then the result, or all steps at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.app import App, Connected, bearer_of
from bench.functions import step_id
from bench.load import Address, Connection, Control


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    app = App()
    listener = await asyncio.get_running_loop().create_server(lambda: Connected(app), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api/inngest"
    finally:
        listener.close()


async def call(connection: Connection, fn: str, steps: dict[str, Any], target: str = "step", run: str = "r1") -> Any:
    event = {"name": f"bench/{fn}", "data": {"tag": f"tag-{run}"}}
    body = {"ctx": {"run_id": run, "attempt": 0}, "event": event, "events": [event], "steps": steps, "use_api": False}
    path = f"/api/inngest?fnId=bench-{fn}&stepId={target}"
    status, answer = await connection.request("POST", path, json.dumps(body).encode(), {}, within_s=10)
    return status, json.loads(answer)


async def test_a_sequence_gives_one_step_per_call_and_then_ends_and_its_times_are_noted_in_order() -> None:
    async with served() as url:
        connection, control = Connection(Address.of(url)), Control(url)
        waiting = asyncio.create_task(control.wait("bench-3", 1, within_s=10))
        steps: dict[str, Any] = {}
        for n in range(3):
            status, (op,) = await call(connection, "bench-3", steps)
            assert (status, op["op"], op["id"]) == (206, "StepRun", step_id(n))
            steps[op["id"]] = {"data": op["data"]}
        assert (await call(connection, "bench-3", steps))[0] == 200
        assert await waiting
        assert (await control.counts())["bench-3"] == {"calls": 4, "steps": 3, "done": 1}
        (row,) = await control.report()
        assert (row["tag"], row["ends"], len(row["times"])) == ("tag-r1", 1, 8)
        assert row["times"] == sorted(row["times"])
        await control.reset()
        assert await control.report() == []
        connection.close()
        control.close()


async def test_parallel_steps_are_planned_together_run_one_by_one_and_only_missing_ones_are_planned_again() -> None:
    async with served() as url:
        connection = Connection(Address.of(url))
        status, ops = await call(connection, "bench-par10", {})
        assert (status, {op["op"] for op in ops}, len(ops)) == (206, {"StepPlanned"}, 10)
        status, (ran,) = await call(connection, "bench-par10", {}, target=ops[4]["id"])
        assert (status, ran["op"], ran["id"]) == (206, "StepRun", ops[4]["id"])
        _, again = await call(connection, "bench-par10", {ran["id"]: {"data": ran["data"]}})
        assert [op["id"] for op in again] == [op["id"] for n, op in enumerate(ops) if n != 4]
        assert (await call(connection, "bench-par10", {op["id"]: {"data": 1} for op in ops}))[0] == 200
        connection.close()


async def test_a_wait_for_runs_that_do_not_end_is_over_at_its_deadline() -> None:
    async with served() as url:
        control = Control(url)
        assert await control.wait("bench-1", 1, within_s=0.1) is False
        assert (await control.counts())["bench-1"]["done"] == 0
        control.close()


def test_the_bearer_of_a_signing_key_keeps_its_prefix() -> None:
    wanted = "signkey-prod-b2ed992186a5cb19f6668aade821f502c1d00970dfd0e35128d51bac4649916c"
    assert bearer_of("signkey-prod-12345678") == wanted
