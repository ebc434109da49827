"""Cancel and replay in the browser's words: forms, redirects, audit lines, and what a worker then does."""

import asyncio
import html
import re
from datetime import timedelta
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from app.adapters.redis import RUN_CHANGED
from app.domain.ids import parse_ulid, to_ulid
from app.engine import bulk
from app.engine.clock import DatabaseClock
from app.store.db import open_engine_pool
from tests import world
from tests.page_app import QuietBell, make_app
from tests.world import step_key

RUNS = "/env/production/runs"
BULK = "/env/production/bulk"


@pytest.fixture
async def engine_pool(database: str) -> Any:
    pool = await open_engine_pool(database, size=3)
    yield pool
    await pool.close()


@pytest.fixture
def bell() -> QuietBell:
    return QuietBell()


@pytest.fixture
def nudges() -> list[Any]:
    return []


@pytest.fixture
async def client(page_pool: Any, engine_pool: Any, ours: Any, bell: QuietBell, nudges: list[Any]) -> Any:
    app: Any = make_app(page_pool, ours, engine_pool=engine_pool, bell=bell, nudges=nudges)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as client:
        yield client


@pytest.fixture
async def now(owner: Any) -> Any:
    return await owner.fetchval("select clock()")


async def lane(owner: Any, function: Any) -> None:
    """Runs of stories stand in a lane nobody made; replays are put into it."""
    await owner.execute(
        "insert into lanes (id, account_id, environment_id, function_id) values ($1, $2, $3, $4) on conflict do nothing",
        world.lane_id(function), function.tenant.account_id, function.tenant.environment_id, function.id,
    )  # fmt: skip


async def audit(owner: Any, ours: Any) -> list[tuple[str, str]]:
    rows = await owner.fetch("select action, object from audit_log where account_id = $1 order by at", ours.account_id)
    return [(r["action"], r["object"]) for r in rows]


async def begin(owner: Any) -> None:
    """Let the seconds pass in which an action can be undone; what is paused stays so."""
    await owner.execute("update bulk_actions set starts_at = clock() - interval '1 second'")
    await owner.execute("update bulk_items set taken_until = '-infinity' where taken_until < 'infinity'")


async def work(engine_pool: Any, ours: Any) -> list[bulk.Done]:
    """Do what a worker does with bulk actions, until nothing is left; gives what it did for the tenant who looks."""
    told: list[bulk.Done] = []
    async with engine_pool.acquire() as connection:
        await begin(connection)
    while await bulk.run_once(engine_pool, DatabaseClock(), told.append):
        pass
    return [done for done in told if done.scope.account_id == ours.account_id]


# ------------------------------------------------------------------ one run


async def test_an_active_run_can_be_cancelled_and_its_page_then_offers_replay(
    owner: Any, client: Any, ours: Any, now: Any, bell: QuietBell
) -> None:
    story = await world.order_waiting(await world.make_function(owner, ours), now).save(owner)
    before = (await client.get(f"{RUNS}/{story.ulid}")).text
    assert 'data-dialog="cancel-dialog"' in before
    assert "Cancel this run?" in (await client.get(f"{RUNS}/{story.ulid}/cancel")).text
    answer = await client.post(f"{RUNS}/{story.ulid}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{RUNS}/{story.ulid}")
    after = (await client.get(f"{RUNS}/{story.ulid}")).text
    assert 'data-status="cancelled"' in after
    assert "cancel-dialog" not in after
    assert 'id="replay-run"' in after
    assert await owner.fetchval("select count(*) from items where run_id = $1", story.id) == 0
    assert await audit(owner, ours) == [("run.cancelled", story.ulid)]
    assert bell.published == [(f"{RUN_CHANGED}{ours.environment_id}", story.ulid)]


async def test_cancelling_twice_changes_nothing_and_notes_nothing(owner: Any, client: Any, ours: Any, now: Any) -> None:
    story = await world.order_completed(await world.make_function(owner, ours), now - timedelta(minutes=1)).save(owner)
    for _ in range(2):
        assert (await client.post(f"{RUNS}/{story.ulid}/cancel")).status_code == 303
    assert await owner.fetchval("select status from runs where id = $1", story.id) == "completed"
    assert await audit(owner, ours) == []


async def test_a_failed_run_is_replayed_from_the_failed_step_and_both_pages_know(
    owner: Any, client: Any, ours: Any, now: Any, bell: QuietBell
) -> None:
    function = await world.make_function(owner, ours)
    await lane(owner, function)
    story = await world.order_failed(function, now - timedelta(minutes=10)).save(owner)
    answer = await client.post(f"{RUNS}/{story.ulid}/replay", data={"from": "failed"})
    new = answer.headers["location"].rpartition("/")[2]
    kept = await owner.fetch("select step_key from steps where run_id = $1", parse_ulid(new))
    assert step_key("charge-card") in {r["step_key"] for r in kept}
    assert step_key("notify-warehouse") not in {r["step_key"] for r in kept}
    assert f"/runs/{new}" in (await client.get(f"{RUNS}/{story.ulid}")).text
    page = (await client.get(f"{RUNS}/{new}")).text
    assert "Replay of" in page
    assert f"/runs/{story.ulid}" in page
    assert "reused" in page
    assert await audit(owner, ours) == [("run.replayed", story.ulid)]
    assert bell.rings == 1


async def test_replays_from_the_start_and_from_a_step_are_offered_too(
    owner: Any, client: Any, ours: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    await lane(owner, function)
    story = await world.order_failed(function, now - timedelta(minutes=10)).save(owner)
    page = (await client.get(f"{RUNS}/{story.ulid}?step={step_key('charge-card')}")).text
    assert f'name="from" value="{step_key("charge-card")}"' in page
    for origin, expected in (("start", 0), (step_key("charge-card"), 2)):
        answer = await client.post(f"{RUNS}/{story.ulid}/replay", data={"from": origin})
        new = parse_ulid(answer.headers["location"].rpartition("/")[2])
        assert await owner.fetchval("select count(*) from steps where run_id = $1", new) == expected


async def test_what_is_not_ours_can_be_neither_cancelled_nor_replayed(
    owner: Any, client: Any, theirs: Any, now: Any
) -> None:
    function = await world.make_function(owner, theirs)
    waiting = await world.order_waiting(function, now).save(owner)
    failed = await world.order_failed(function, now - timedelta(minutes=10)).save(owner)
    assert (await client.post(f"{RUNS}/{waiting.ulid}/cancel")).status_code == 404
    assert (await client.post(f"{RUNS}/{failed.ulid}/replay")).status_code == 404
    assert await owner.fetchval("select status from runs where id = $1", waiting.id) == "running"
    assert await owner.fetchval("select count(*) from runs where original_run_id = $1", failed.id) == 0


async def test_a_removed_function_offers_no_replay(owner: Any, client: Any, ours: Any, now: Any) -> None:
    function = await world.make_function(owner, ours)
    story = await world.order_failed(function, now - timedelta(minutes=10)).save(owner)
    await owner.execute("update functions set archived_at = clock() where id = $1", function.id)
    page = (await client.get(f"{RUNS}/{story.ulid}")).text
    assert 'id="replay-run"' not in page
    assert "not there any more" in page


async def test_who_may_only_look_sees_no_actions(owner: Any, page_pool: Any, ours: Any, now: Any) -> None:
    story = await world.order_waiting(await world.make_function(owner, ours), now).save(owner)
    app: Any = make_app(page_pool, ours, role="viewer")
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as client:
        assert "cancel-dialog" not in (await client.get(f"{RUNS}/{story.ulid}")).text
        assert 'name="run"' not in (await client.get(RUNS)).text


# ------------------------------------------------------------------ many runs


async def sleepers(owner: Any, ours: Any, now: Any, number: int) -> list[world.Story]:
    function = await world.make_function(owner, ours)
    return [await world.order_waiting(function, now - timedelta(seconds=n)).save(owner) for n in range(number)]


def hidden(text: str) -> dict[str, list[str]]:
    """The hidden fields of the form that starts the action."""
    form = text.split(f'action="{BULK}"')[1]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form):
        found.setdefault(name, []).append(html.unescape(value))
    return found


async def test_ticked_runs_are_cancelled_by_a_worker_and_what_cannot_be_is_said_before(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any, nudges: list[Any]
) -> None:
    stories = await sleepers(owner, ours, now, 5)
    ended = await world.order_completed(stories[0].function, now - timedelta(minutes=1)).save(owner)
    page = (
        await client.get(f"{BULK}/new", params={"action": "cancel", "run": [s.ulid for s in (*stories, ended)]})
    ).text
    assert "Cancel 5 runs" in page
    assert "Already finished" in page
    answer = await client.post(BULK, data=hidden(page))
    assert answer.status_code == 303
    place = answer.headers["location"]
    assert "0 of 5" in (await client.get(place)).text
    assert len(await work(engine_pool, ours)) == 5
    done = (await client.get(place)).text
    assert "5 of 5, finished" in done
    assert "stream" not in done
    assert {await owner.fetchval("select status from runs where id = $1", s.id) for s in stories} == {"cancelled"}
    assert await audit(owner, ours) == [("bulk.started", place.rpartition("/")[2])]


async def test_the_same_form_twice_is_one_action(owner: Any, client: Any, ours: Any, now: Any) -> None:
    stories = await sleepers(owner, ours, now, 2)
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "run": [s.ulid for s in stories]})).text
    first, second = [await client.post(BULK, data=hidden(page)) for _ in range(2)]
    assert first.headers["location"] == second.headers["location"]
    assert await owner.fetchval("select count(*) from bulk_actions where account_id = $1", ours.account_id) == 1


async def test_everything_that_matches_is_the_selection_when_asked(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    await lane(owner, function)
    failed = [await world.order_failed(function, now - timedelta(minutes=10 + n)).save(owner) for n in range(3)]
    await world.order_waiting(function, now).save(owner)
    page = (await client.get(f"{BULK}/new", params={"action": "replay", "all": "1", "status": "failed"})).text
    assert "Replay 3 runs" in page
    # What fails after the question was asked is not in the set.
    await world.Story(function, now + timedelta(minutes=5)).begin().fail(world.TIMEOUT).save(owner)
    answer = await client.post(BULK, data=hidden(page))
    done = await work(engine_pool, ours)
    assert sorted(d.run_id for d in done) == sorted(s.id for s in failed)
    place = answer.headers["location"]
    new = (await client.get(f"{RUNS}?bulk={place.rpartition('/')[2]}")).text
    assert new.count('<tr id="run-') == 3
    again = (await client.get(f"{BULK}/new", params={"action": "replay", "run": [s.ulid for s in failed]})).text
    assert 'Already replayed: <b class="num">3' in again
    assert "There is nothing to replay" in again


async def test_a_set_that_has_changed_is_shown_again(owner: Any, client: Any, ours: Any, now: Any) -> None:
    stories = await sleepers(owner, ours, now, 4)
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "run": [s.ulid for s in stories]})).text
    await client.post(f"{RUNS}/{stories[0].ulid}/cancel")
    answer = await client.post(BULK, data=hidden(page))
    assert answer.status_code == 422
    assert "it was 4, now it is 3" in answer.text
    assert await owner.fetchval("select count(*) from bulk_actions where account_id = $1", ours.account_id) == 0


async def test_a_run_that_ends_meanwhile_is_left_out_and_the_result_says_so(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 2)
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "run": [s.ulid for s in stories]})).text
    place = (await client.post(BULK, data=hidden(page))).headers["location"]
    await client.post(f"{RUNS}/{stories[0].ulid}/cancel")
    await work(engine_pool, ours)
    text = (await client.get(f"{place}?outcome=skipped")).text
    assert "The run had already ended." in text
    assert stories[0].ulid in text


async def test_stopping_drops_what_has_not_started(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 3)
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "run": [s.ulid for s in stories]})).text
    place = (await client.post(BULK, data=hidden(page))).headers["location"]
    await client.post(f"{place}/stop")
    assert await work(engine_pool, ours) == []
    assert "Dropped" in (await client.get(place)).text
    for story in stories:
        assert await owner.fetchval("select status from runs where id = $1", story.id) == "running"


async def test_many_runs_need_a_reason_and_very_many_the_number_typed(
    owner: Any, client: Any, ours: Any, now: Any
) -> None:
    await owner.execute(
        """insert into runs (id, account_id, environment_id, app_id, function_id, function_version, lane_id, status,
             commit_id, max_attempts, event_id, event_received_at, event_name, queued_at)
           select (lpad(to_hex((extract(epoch from $3::timestamptz) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid,
             $1, $2, $2, $2, 1, $2, 'queued', $2, 1, $2, $3, 'x', $3 from generate_series(1, 1100) n""",
        ours.account_id, ours.environment_id, now,
    )  # fmt: skip
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "all": "1"})).text
    assert "Type the number of runs, 1100" in page
    assert "As fast as possible" in page
    assert "10 runs a second: 1 min 50 s" in page
    form = hidden(page) | {"reason": "deploy went wrong"}
    for typed in ("", "110", "1101"):
        answer = await client.post(BULK, data=form | {"typed": typed})
        assert (answer.status_code, "Type the number" in answer.text) == (422, True)
    assert (await client.post(BULK, data=form | {"typed": "1,100"})).status_code == 303
    rows = await owner.fetch("select id from runs where account_id = $1 limit 150", ours.account_id)
    ids = [to_ulid(row["id"]) for row in rows]
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "run": ids})).text
    answer = await client.post(BULK, data=hidden(page))
    assert answer.status_code == 422
    assert "Say why" in answer.text
    assert (await client.post(BULK, data=hidden(page) | {"reason": "deploy went wrong"})).status_code == 303


async def test_two_workers_share_one_action_and_do_nothing_twice(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    await lane(owner, function)
    failed = [await world.order_failed(function, now - timedelta(minutes=10 + n)).save(owner) for n in range(12)]
    page = (await client.get(f"{BULK}/new", params={"action": "replay", "run": [s.ulid for s in failed]})).text
    await client.post(BULK, data=hidden(page))
    done = await asyncio.gather(work(engine_pool, ours), work(engine_pool, ours))
    assert sorted(d.run_id for both in done for d in both) == sorted(s.id for s in failed)
    made = await owner.fetch("select original_run_id from runs where original_run_id = any($1)", [s.id for s in failed])
    assert len(made) == 12


async def test_bulk_pages_of_others_are_not_found(
    owner: Any, client: Any, page_pool: Any, ours: Any, theirs: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 1)
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "run": [stories[0].ulid]})).text
    place = (await client.post(BULK, data=hidden(page))).headers["location"]
    assert place in (await client.get(BULK)).text
    app: Any = make_app(page_pool, theirs)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as stranger:
        for method, path in (
            ("get", place), ("get", f"{place}/stream"), ("get", f"{place}/csv"),
            *(("post", f"{place}/{deed}") for deed in ("undo", "pause", "resume", "stop")),
        ):  # fmt: skip
            assert (await getattr(stranger, method)(path)).status_code == 404
        assert place not in (await stranger.get(BULK)).text
        theirs_page = (await stranger.get(f"{BULK}/new", params={"action": "cancel", "run": [stories[0].ulid]})).text
        assert "Cancel 0 runs" in theirs_page


async def asked_for(client: Any, stories: list[world.Story], action: str = "cancel", **more: str) -> str:
    """Ask for an action on these runs; gives where it is shown."""
    page = (await client.get(f"{BULK}/new", params={"action": action, "run": [s.ulid for s in stories]})).text
    answer = await client.post(BULK, data=hidden(page) | more)
    assert answer.status_code == 303
    place: str = answer.headers["location"]
    return place


async def work_now(engine_pool: Any, ours: Any) -> int:
    """Do what is due, and let no time pass before; gives how many runs of ours were changed."""
    told: list[bulk.Done] = []
    while await bulk.run_once(engine_pool, DatabaseClock(), told.append):
        pass
    return sum(done.scope.account_id == ours.account_id for done in told)


async def test_nothing_starts_while_it_can_be_undone_and_undoing_leaves_no_trace(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 3)
    place = await asked_for(client, stories)
    assert await work_now(engine_pool, ours) == 0
    page = (await client.get(place)).text
    assert "Starts in" in page
    assert 'data-words="Cancel 3 runs"' in page
    for _ in range(2):
        assert (await client.post(f"{place}/undo")).status_code == 303
    assert "undone" in (await client.get(place)).text
    assert "Undone" in (await client.get(BULK)).text
    assert await work(engine_pool, ours) == []
    versions = [await owner.fetchrow("select status, version from runs where id = $1", s.id) for s in stories]
    assert {tuple(v) for v in versions} == {("running", stories[0].version)}
    assert [action for action, _ in await audit(owner, ours)] == ["bulk.started", "bulk.undone"]


async def test_what_has_started_cannot_be_undone(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 2)
    place = await asked_for(client, stories)
    assert len(await work(engine_pool, ours)) == 2
    await client.post(f"{place}/undo")
    assert "2 of 2, finished" in (await client.get(place)).text
    assert (await client.post(f"{place}/explode")).status_code == 404


async def test_a_paused_action_rests_until_it_is_resumed(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 3)
    place = await asked_for(client, stories)
    await begin(owner)
    assert (await client.post(f"{place}/pause")).status_code == 303
    assert await work_now(engine_pool, ours) == 0
    # A worker that held items already looks once more.
    await owner.execute("update bulk_items set taken_until = '-infinity' where account_id = $1", ours.account_id)
    assert await work_now(engine_pool, ours) == 0
    page = (await client.get(place)).text
    assert "0 of 3, paused" in page
    assert "Resume" in page
    await client.post(f"{place}/resume")
    assert await work_now(engine_pool, ours) == 3
    assert "3 of 3, finished" in (await client.get(place)).text
    assert [action for action, _ in await audit(owner, ours)] == ["bulk.started", "bulk.paused", "bulk.resumed"]


async def test_a_speed_spreads_the_runs_over_time(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 5)
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "run": [s.ulid for s in stories]})).text
    assert "1 run a second: 5.00 s" in page
    await asked_for(client, stories, speed="1")
    # Two and a half seconds after the start three are due, and more only when this machine is slow.
    await owner.execute(
        "update bulk_items i set taken_until = taken_until - (b.starts_at - clock()) - interval '2.5 seconds'"
        " from bulk_actions b where b.id = i.bulk_id and b.account_id = $1",
        ours.account_id,
    )
    due = "select count(*) from bulk_items where account_id = $1 and taken_until < clock()"
    assert await owner.fetchval(due, ours.account_id) in (3, 4, 5)
    spread = "select max(taken_until) - min(taken_until) from bulk_items where account_id = $1"
    assert await owner.fetchval(spread, ours.account_id) == timedelta(seconds=4)


async def test_children_are_cancelled_too_when_asked(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    parent, child, grandchild, other = await sleepers(owner, ours, now, 4)
    for below, above in ((child, parent), (grandchild, child)):
        await owner.execute("update runs set parent_run_id = $2 where id = $1", below.id, above.id)
    place = await asked_for(client, [parent], deep="1")
    assert len(await work(engine_pool, ours)) == 3
    assert "3 of 3, finished" in (await client.get(place)).text
    left = await owner.fetch("select id from runs where account_id = $1 and ended_at is null", ours.account_id)
    assert [row["id"] for row in left] == [other.id]


async def test_what_failed_can_be_tried_again_and_what_was_made_can_be_cancelled(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    await lane(owner, function)
    failed = [await world.order_failed(function, now - timedelta(minutes=10 + n)).save(owner) for n in range(3)]
    place = await asked_for(client, failed, "replay", from_step="start", name="after the fix")
    await owner.execute("update bulk_items set state = 'failed', ended_at = clock() where run_id = $1", failed[1].id)
    await work(engine_pool, ours)
    page = (await client.get(place)).text
    assert "after the fix" in page
    again = re.search(r'href="([^"]+)">Retry the 1 that failed', page)
    made = re.search(r'href="([^"]+)">Cancel the runs this created', page)
    assert again is not None
    assert made is not None
    assert "Replay 1 run<" in (await client.get(html.unescape(again[1]))).text
    question = (await client.get(html.unescape(made[1]))).text
    assert "Cancel 2 runs" in question
    bulk_id = place.rpartition("/")[2]
    assert (await client.get(RUNS, params={"q": f"bulk:{bulk_id}"})).text.count('<tr id="run-') == 2
    assert (await client.get(RUNS, params={"items": f"{bulk_id}.failed"})).text.count('<tr id="run-') == 1


async def test_the_result_is_a_file_that_no_program_runs(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 2)
    await owner.execute("update functions set name = '=cmd()' where id = $1", stories[0].function.id)
    place = await asked_for(client, stories)
    await work(engine_pool, ours)
    answer = await client.get(f"{place}/csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    lines = answer.text.splitlines()
    assert lines[0] == "outcome,run,function,status,new_run,new_status,why"
    assert sorted(line.split(",")[1] for line in lines[1:]) == sorted(s.ulid for s in stories)
    assert all(line.split(",")[2] == "'=cmd()" for line in lines[1:])


async def test_the_history_says_which_runs_and_why_and_can_be_repeated(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    stories = await sleepers(owner, ours, now, 2)
    page = (await client.get(f"{BULK}/new", params={"action": "cancel", "all": "1", "status": "waiting"})).text
    await client.post(BULK, data=hidden(page) | {"reason": "wrong deploy"})
    await asked_for(client, stories[:1])
    text = (await client.get(BULK)).text
    assert "wrong deploy" in text
    assert ours.email in text
    assert "Status is waiting." in text
    assert "Ticked one by one" in text
    repeats = re.findall(r'href="([^"]+)" aria-label="Repeat', text)
    shown = [(await client.get(html.unescape(address))).text for address in repeats]
    assert ["Cancel 1 run<" in shown[0], "Cancel 2 runs<" in shown[1]] == [True, True]


async def test_an_expression_can_be_acted_on_and_a_broken_one_cannot(
    owner: Any, client: Any, engine_pool: Any, ours: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    for n in range(4):
        story = world.order_waiting(function, now - timedelta(minutes=n))
        story.event_data = {"total": n}
        await story.save(owner)
    ask = {"action": "cancel", "all": "1", "q": "event.data.total >= 2"}
    page = (await client.get(f"{BULK}/new", params=ask)).text
    assert "Cancel 2 runs" in page
    assert (await client.post(BULK, data=hidden(page))).status_code == 303
    assert len(await work(engine_pool, ours)) == 2
    broken = await client.get(f"{BULK}/new", params=ask | {"q": "event.data.total >="})
    assert broken.status_code == 422
    assert "There is nothing to cancel" in broken.text
    assert (await client.post(BULK, data=ask | {"q": "event.data.total >="})).status_code == 422


async def test_filters_of_the_question_can_be_taken_away(owner: Any, client: Any, ours: Any, now: Any) -> None:
    await sleepers(owner, ours, now, 2)
    ask = {"action": "cancel", "all": "1", "status": "waiting", "app": "elsewhere"}
    page = (await client.get(f"{BULK}/new", params=ask)).text
    assert "Cancel 0 runs" in page
    less = re.search(r'href="([^"]+)" aria-label="Remove filter: App is elsewhere"', page)
    assert less is not None
    assert "Cancel 2 runs" in (await client.get(html.unescape(less[1]))).text
