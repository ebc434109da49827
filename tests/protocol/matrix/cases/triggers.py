"""What starts a function: events, expressions, patterns, the clock; and what an event carries."""

import time

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import event, give, run, var

SEVERAL = function("several", run("by", gives=event("name")), triggers=[{"event": "@@/door"}, {"event": "@@/window"}])
ONLY_IF = function(
    "only-if",
    run("started", gives=event("data.n")),
    triggers=[{"event": "@@/only-if", "if": "event.data.n > 3 && event.data.word.startsWith('ja')"}],
)
PATTERN = function("pattern", run("by", gives=event("name")), give(var("by")), triggers=[{"event": "@@/birds/*"}])
FANS = [
    function(f"fan-{name}", run(f"fan {name}"), triggers=[{"event": "@@/fan"}]) for name in ("left", "middle", "right")
]
CARRIES = function("carries", run("read", gives={"id": event("id"), "ts": event("ts")}), give(var("read")))
CARRIES_ALL = function(
    "carries-all", run("read", gives={"v": event("v"), "user": event("user")}), give(var("read")), needs=["fields"]
)
ONCE = function("once-per-id", run("started"))
LATER = function("later", run("started"))
HOURLY = function("by-the-clock", run("ticked", gives=event("name")), triggers=[{"cron": "* * * * *"}])
FOLLOWER = function(
    "follows-ends",
    run("saw", gives=[event("data.run_id"), event("data.result")]),
    give(var("saw")),
    triggers=[{"event": "inngest/function.finished", "if": "event.data.function_id == '@app@-followed'"}],
)
FOLLOWED = function("followed", run("work"), give("the result"))


@case("Triggers and events")
async def each_trigger_of_a_function_starts_it(play: Play) -> None:
    for name in ("door", "window"):
        await play.ends(await play.send(name))

    assert play.steps() == ["by", "by"]


@case("Triggers and events")
async def a_trigger_with_an_expression_starts_only_for_events_it_holds_for(play: Play) -> None:
    for n, word in ((3, "ja"), (4, "nein"), (5, "jawohl")):
        await play.send("only-if", {"n": n, "word": word})
    await play.until_noted("started")
    await play.taken()

    assert play.steps() == ["started"]


@case("Triggers and events")
async def a_pattern_starts_for_every_event_name_that_fits(play: Play) -> None:
    (ended,) = await play.ends(await play.send("birds/owl"))
    other = await play.send("fish/carp")
    await play.taken()

    assert ended["output"] == f"{play.column.name}/birds/owl"
    assert await play.runs_of(other) == []


@case("Triggers and events")
async def one_event_starts_every_function_it_triggers(play: Play) -> None:
    await play.ends(await play.send("fan"), runs=3)

    assert sorted(play.steps()) == ["fan left", "fan middle", "fan right"]


@case("Triggers and events")
async def an_event_arrives_with_its_own_id_and_time(play: Play) -> None:
    ts = int(time.time() * 1000) - 5_000
    output = await play.completes(CARRIES, id=f"{play.column.name} own id", ts=ts)

    assert output == {"id": f"{play.column.name} own id", "ts": ts}


@case("Triggers and events", needs=["fields"])
async def an_event_arrives_with_its_user_and_version(play: Play) -> None:
    output = await play.completes(CARRIES_ALL, user={"id": 7, "name": "Ann"}, v="2026-01-02.1")

    assert output == {"v": "2026-01-02.1", "user": {"id": 7, "name": "Ann"}}


@case("Triggers and events")
async def an_event_sent_twice_with_one_id_starts_one_run(play: Play) -> None:
    first = await play.send(ONCE, id=f"{play.column.name} same id")
    await play.ends(first)
    again = await play.send(ONCE, id=f"{play.column.name} same id")
    await play.taken()

    assert again != first
    assert await play.runs_of(again) == []
    assert play.steps() == ["started"]


@case("Triggers and events")
async def an_event_with_a_time_to_come_starts_its_run_then(play: Play) -> None:
    at = int(time.time() * 1000) + 4_000
    await play.completes(LATER, ts=at)

    assert play.moment("started") >= at - 100


@case("Triggers and events")
async def a_schedule_starts_its_function_when_its_minute_has_come(play: Play) -> None:
    await play.clock_reaches(HOURLY)
    await play.until_noted("ticked", key="by-the-clock")

    assert play.lines(key="by-the-clock")[0]["value"] is None


@case("Triggers and events")
async def the_end_of_a_run_is_an_event_with_its_result(play: Play) -> None:
    ended = await play.run(FOLLOWED)
    await play.until_noted("saw")

    assert play.steps() == ["work", "saw"]
    assert ended["output"] == "the result"
