"""What a plan allows is judged when an app syncs, and a refused sync leaves nothing behind."""

import json
from typing import Any

import pytest

from app.domain.errors import RegistrationRefused
from app.engine.sync import register_body
from tests.integration.engine.world import URL, World


async def test_a_plan_is_judged_at_sync_before_anything_is_written(world: World) -> None:
    await world.owner.execute("update accounts set plan = 'free' where id = $1", world.mine.account_id)
    step = {"step": {"id": "step", "name": "step", "runtime": {"type": "http", "url": f"{URL}?fnId=f&stepId=step"}}}

    def body(**more: Any) -> bytes:
        function = {"id": "f", "name": "f", "triggers": [{"event": "e"}], "steps": step} | more
        return json.dumps({"appname": "other", "url": URL, "functions": [function]}).encode()

    too_large = body(batchEvents={"maxSize": 50, "timeout": "5s"})
    with pytest.raises(RegistrationRefused) as caught:
        await register_body(world.pool, world.mine, too_large)
    assert caught.value.code == "plan_upgrade_required"
    assert await world.value("select error_code from syncs") == "plan_upgrade_required"
    assert await world.value("select count(*) from functions") == 0
    await register_body(world.pool, world.theirs, too_large)
    synced = await register_body(world.pool, world.mine, body(concurrency=50))
    assert [w["code"] for w in synced.warnings] == ["plan_limit"]


async def test_more_crons_than_the_plan_allows_are_refused_and_none_of_them_is_kept(world: World) -> None:
    await world.owner.execute("update accounts set plan = 'free' where id = $1", world.mine.account_id)
    functions = [
        {
            "id": f"f{n}",
            "name": "f",
            "triggers": [{"cron": f"{minute} * * * *"} for minute in range(10)],
            "steps": {"step": {"id": "step", "runtime": {"type": "http", "url": f"{URL}?fnId=f{n}&stepId=step"}}},
        }
        for n in range(11)
    ]
    with pytest.raises(RegistrationRefused) as caught:
        await register_body(
            world.pool, world.mine, json.dumps({"appname": "other", "url": URL, "functions": functions}).encode()
        )
    assert (caught.value.code, caught.value.details["crons"]) == ("plan_upgrade_required", 110)
    assert await world.value("select count(*) from schedules") == 0
