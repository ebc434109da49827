"""Runs that are ended before they end by themselves."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import event, give, run, sleep, var, wait

HOUR = 3_600_000
SLEEPER = function("sleeper", run("before"), sleep("long", HOUR), run("after"), on_failure=[run("failure function")])
WAITER = function("waiter", run("before"), wait("never", "never-for-waiter"), run("after"))
CANCEL_ON = function(
    "cancel-on",
    run("before"),
    sleep("long", HOUR),
    run("after"),
    cancel=[{"event": "@@/stop", "if": "async.data.order == event.data.order"}],
    needs=["flow"],
)
CANCEL_MATCH = function(
    "cancel-match",
    run("before"),
    sleep("long", HOUR),
    run("after"),
    cancel=[{"event": "@@/stop-match", "match": "data.order"}],
    needs=["match"],
)
CANCEL_WINDOW = function(
    "cancel-window",
    run("before"),
    sleep("nap", 4000),
    run("after"),
    cancel=[{"event": "@@/stop-late", "timeout_s": 1}],
    needs=["flow"],
)
FINISH = function(
    "finish-in-time", run("before"), sleep("long", HOUR), run("after"), timeouts={"finish_s": 1}, needs=["flow"]
)
# Two functions share one place, so that the one that holds it may itself start as late as a busy machine lets it.
ONE_PLACE: list[dict[str, Any]] = [{"limit": 1, "key": "event.data.place", "scope": "env"}]
HOLDER = function("holds-the-place", run("busy", until=event("data.until")), concurrency=ONE_PLACE, needs=["flow"])
START = function("start-in-time", run("busy"), concurrency=ONE_PLACE, timeouts={"start_s": 1}, needs=["flow"])
PAUSE = function("two-seconds", sleep("wait", 2000), run("waited"))
BULK = function("bulk-cancelled", run("before"), sleep("long", HOUR), run("after"))
TOLD = function(
    "told-of-cancel",
    run("told", gives=event("data.run_id")),
    give(var("told")),
    triggers=[{"event": "inngest/function.cancelled", "if": "event.data.function_id == '@app@-waiter'"}],
)


@case("Cancellation")
async def a_run_cancelled_over_the_api_ends_and_does_nothing_more(play: Play) -> None:
    started = await play.send(SLEEPER)
    await play.until_noted("before")
    run_id = await play.until_run(started)
    status, _ = await play.api("DELETE", f"/v1/runs/{run_id}")
    (ended,) = await play.ends(started)
    await play.taken()

    assert (status, ended["status"]) == (200, "Cancelled")
    assert play.steps() == ["before"]


@case("Cancellation")
async def the_cancellation_of_a_run_is_an_event_that_starts_functions(play: Play) -> None:
    started = await play.send(WAITER)
    await play.until_waiting(started)
    run_id = await play.until_run(started)
    await play.api("DELETE", f"/v1/runs/{run_id}")
    await play.until_noted("told")

    assert play.steps() == ["before", "told"]


@case("Cancellation", needs=["flow"])
async def an_event_cancels_the_runs_its_expression_holds_for(play: Play) -> None:
    one, two = [await play.send(CANCEL_ON, {"order": n, "key": f"{play.key} {n}"}) for n in (1, 2)]
    for n in (1, 2):
        await play.until_noted("before", key=f"{play.key} {n}")
    await play.send("stop", {"order": 2})
    (ended,) = await play.ends(two)
    await play.taken()

    assert ended["status"] == "Cancelled"
    assert await play.is_open(one)
    assert play.steps(f"{play.key} 2") == ["before"]


@case("Cancellation", needs=["match"])
async def an_event_cancels_the_runs_that_match_one_path(play: Play) -> None:
    one, two = [await play.send(CANCEL_MATCH, {"order": n, "key": f"{play.key} {n}"}) for n in (1, 2)]
    for n in (1, 2):
        await play.until_noted("before", key=f"{play.key} {n}")
    await play.send("stop-match", {"order": 1})
    (ended,) = await play.ends(one)
    await play.taken()

    assert ended["status"] == "Cancelled"
    assert await play.is_open(two)


@case("Cancellation", needs=["flow"])
async def after_its_window_an_event_cancels_nothing(play: Play) -> None:
    started = await play.send(CANCEL_WINDOW)
    await play.until_noted("before")
    await play.completes(PAUSE)
    await play.send("stop-late")
    (ended,) = await play.ends(started)

    assert ended["status"] == "Completed"
    assert sorted(play.steps()) == ["after", "before", "waited"]


@case("Cancellation", needs=["flow"])
async def a_run_that_takes_longer_than_it_may_is_cancelled(play: Play) -> None:
    ended = await play.run(FINISH)

    assert ended["status"] == "Cancelled"
    assert play.steps() == ["before"]


@case("Cancellation", needs=["flow"])
async def a_run_that_waits_longer_for_its_start_than_it_may_is_cancelled(play: Play) -> None:
    place = f"the place of {play.column.name}"
    with play.held() as file:
        holder = await play.send(HOLDER, {"place": place, "until": file, "key": f"{play.key} holder"})
        await play.until_noted("busy", key=f"{play.key} holder")
        late = await play.run(START, {"place": place})
    (ended,) = await play.ends(holder)

    assert (ended["status"], late["status"]) == ("Completed", "Cancelled")
    assert play.steps() == []


@case("Cancellation")
async def a_bulk_cancellation_ends_the_runs_its_expression_holds_for(play: Play) -> None:
    keys = [f"{play.key} {n}" for n in range(3)]
    ids = [await play.send(BULK, {"n": n, "key": keys[n]}) for n in range(3)]
    for key in keys:
        await play.until_noted("before", key=key)
    now = datetime.now(UTC)
    wanted = {
        "app_id": play.column.app_id,
        "function_id": "bulk-cancelled",
        "started_after": (now - timedelta(hours=1)).isoformat(),
        "started_before": now.isoformat(),
        "if": "event.data.n >= 1",
    }
    status, body = await play.api("POST", "/v1/cancellations", wanted)
    ended = [(await play.ends(event_id))[0]["status"] for event_id in ids[1:]]

    assert status in {200, 201}, body
    assert ended == ["Cancelled", "Cancelled"]
    assert await play.is_open(ids[0])
