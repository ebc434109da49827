"""Waits for events and signals."""

from typing import Any

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import event, give, note, parallel, run, send, send_signal, var, wait, wait_signal

SAME_KEY = "async.data.key == event.data.key"
WAITS = function("waits", run("before"), wait("answer", "answer", if_=SAME_KEY), run("after"), give(var("answer")))
PICKY = function(
    "waits-for-one",
    wait("answer", "picky-answer", if_=f"{SAME_KEY} && async.data.grade > 5 && async.data.word in ['yes', 'ja']"),
    give(var("answer")),
)
MATCHES = function(
    "waits-match", wait("answer", "match-answer", match="data.key"), give(var("answer")), needs=["match"]
)
IN_VAIN = function("waits-in-vain", wait("answer", "never", ms=1000), note("saw", var("answer")), give(var("answer")))
MEANWHILE = function(
    "sends-while-registering",
    parallel(
        "both",
        [wait("answer", "meanwhile", if_=SAME_KEY)],
        [send("ask", {"name": "@@/meanwhile", "data": {"key": event("data.key"), "n": 7}})],
    ),
    give(var("both")),
)
TWO = function(
    "waits-twice-at-once",
    parallel("both", [wait("one", "shared", if_=SAME_KEY)], [wait("two", "shared", if_=SAME_KEY)], [run("ready")]),
    give(var("both")),
)
FIRST_OF = function(
    "waits-in-a-row", wait("one", "row-one", if_=SAME_KEY), wait("two", "row-two", if_=SAME_KEY), give(var("two"))
)

SIGNAL: dict[str, Any] = {"needs": ["signal"]}
HEARS = function("hears", wait_signal("ring", event("data.signal")), give(var("ring")), **SIGNAL)
HEARS_LAST = function(
    "hears-last", wait_signal("ring", event("data.signal"), conflict="replace"), give(var("ring")), **SIGNAL
)
HEARS_NOTHING = function(
    "hears-nothing", wait_signal("ring", event("data.signal"), ms=1000), note("saw", var("ring")), **SIGNAL
)
RINGS = function("rings", send_signal("ring", event("data.signal"), {"loud": True}), run("rang"), **SIGNAL)


@case("Waits")
async def a_wait_gives_the_event_that_comes_for_it(play: Play) -> None:
    started = await play.send(WAITS)
    await play.until_waiting(started)
    await play.send("answer", {"n": 1})
    (ended,) = await play.ends(started)

    assert ended["output"] == {"key": play.key, "n": 1}
    assert play.steps() == ["before", "after"]


@case("Waits")
async def a_wait_passes_over_events_for_which_its_expression_does_not_hold(play: Play) -> None:
    started = await play.send(PICKY)
    await play.until_waiting(started)
    await play.send("picky-answer", {"grade": 9, "word": "yes", "key": "of another"})
    await play.send("picky-answer", {"grade": 5, "word": "yes"})
    await play.send("picky-answer", {"grade": 9, "word": "no"})
    await play.send("picky-answer", {"grade": 8, "word": "ja"})
    (ended,) = await play.ends(started)

    assert ended["output"] == {"key": play.key, "grade": 8, "word": "ja"}


@case("Waits", needs=["match"])
async def a_wait_with_match_compares_one_path_of_both_events(play: Play) -> None:
    started = await play.send(MATCHES)
    await play.until_waiting(started)
    await play.send("match-answer", {"key": "of another"})
    await play.send("match-answer", {"n": 2})
    (ended,) = await play.ends(started)

    assert ended["output"] == {"key": play.key, "n": 2}


@case("Waits")
async def a_wait_that_nobody_answers_gives_null_when_its_time_is_up(play: Play) -> None:
    output = await play.completes(IN_VAIN)

    assert output is None
    assert play.noted("saw") is None


@case("Waits")
async def an_event_that_comes_while_the_wait_is_registered_is_not_missed(play: Play) -> None:
    waited, ids = await play.completes(MEANWHILE)

    assert waited == {"key": play.key, "n": 7}
    assert len(ids) == 1


@case("Waits")
async def one_event_ends_all_waits_for_it(play: Play) -> None:
    started = await play.send(TWO)
    await play.until_waiting(started)
    await play.until_noted("ready")
    await play.send("shared", {"n": 3})
    (ended,) = await play.ends(started)

    assert ended["output"] == [{"key": play.key, "n": 3}, {"key": play.key, "n": 3}, "ready"]


@case("Waits")
async def an_event_sent_before_its_wait_is_not_taken_for_it(play: Play) -> None:
    await play.send("row-two", {"n": "early"})
    started = await play.send(FIRST_OF)
    await play.until_waiting(started)
    await play.send("row-two", {"n": "still early"})
    await play.taken()
    await play.send("row-one")
    while not (runs := await play.runs_of(started)) or runs[0]["status"] != "Completed":
        await play.send("row-two", {"n": "in time"})
        await play.taken()

    (ended,) = await play.ends(started)
    assert ended["output"] == {"key": play.key, "n": "in time"}


@case("Signals", needs=["signal"])
async def a_signal_sent_by_a_step_reaches_the_run_that_waits_for_it(play: Play) -> None:
    signal = f"{play.column.name} by step"
    started = await play.send(HEARS, {"signal": signal})
    await play.until_waiting(started)
    await play.completes(RINGS, {"signal": signal})
    (ended,) = await play.ends(started)

    assert ended["output"] == {"signal": signal, "data": {"loud": True}}


@case("Signals", needs=["signal"])
async def a_signal_sent_over_the_api_reaches_the_run_that_waits_for_it(play: Play) -> None:
    signal = f"{play.column.name} by api"
    started = await play.send(HEARS, {"signal": signal})
    await play.until_waiting(started)
    status, body = await play.api("POST", "/v1/signals", {"signal": signal, "data": [1, "ä"]})
    (ended,) = await play.ends(started)

    assert (status, body["data"]["run_id"]) == (200, ended["run_id"])
    assert ended["output"] == {"signal": signal, "data": [1, "ä"]}


@case("Signals", needs=["signal"])
async def a_signal_that_nobody_waits_for_is_no_error_for_the_step_that_sends_it(play: Play) -> None:
    await play.completes(RINGS, {"signal": f"{play.column.name} nobody"})

    assert play.steps() == ["rang"]


@case("Signals", needs=["signal"])
async def a_wait_for_a_signal_gives_null_when_its_time_is_up(play: Play) -> None:
    await play.completes(HEARS_NOTHING, {"signal": f"{play.column.name} silence"})

    assert play.noted("saw") is None


@case("Signals", needs=["signal"])
async def a_second_wait_for_the_same_signal_fails_its_run(play: Play) -> None:
    signal = f"{play.column.name} conflict"
    first = await play.send(HEARS, {"signal": signal})
    await play.until_waiting(first)
    (second,) = await play.ends(await play.send(HEARS, {"signal": signal}))
    await play.api("POST", "/v1/signals", {"signal": signal, "data": 1})
    (ended,) = await play.ends(first)

    assert second["status"] == "Failed"
    assert ended["output"] == {"signal": signal, "data": 1}


@case("Signals", needs=["signal"])
async def a_wait_that_replaces_another_gets_the_signal(play: Play) -> None:
    signal = f"{play.column.name} replaced"
    first = await play.send(HEARS_LAST, {"signal": signal})
    await play.until_waiting(first)
    second = await play.send(HEARS_LAST, {"signal": signal})
    await play.until_waiting(second)
    await play.api("POST", "/v1/signals", {"signal": signal, "data": 2})
    (ended,) = await play.ends(second)

    assert ended["output"] == {"signal": signal, "data": 2}
    (run_of_first,) = await play.runs_of(first)
    assert run_of_first["output"] != {"signal": signal, "data": 2} if "output" in run_of_first else True
