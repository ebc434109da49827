"""How an app answers: streams, refusals at its own door, checkpoints, deferred functions."""

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import attempt, defer, event, failing, give, note, parallel, run, sleep, var

STREAMS = function(
    "streams",
    run("a", takes_ms=100),
    sleep("nap", 1000),
    parallel("both", [run("b")], [run("c")]),
    give([var("a"), var("both")]),
    kind="streaming",
    needs=["streaming"],
)
STREAMS_ERROR = function(
    "streams-error",
    attempt("error", run("shaky", fails=failing(9, "broken stream"))),
    note("caught", var("error")),
    run("after"),
    kind="streaming",
    needs=["streaming"],
    retries=1,
)
BUSY = function("door-503", run("a"), give("in"), door={"status": 503, "times": 2})
LOST = function("door-404", run("a"), give("in"), door={"status": 404, "times": 1})
SHUT = function("door-always-500", run("a"), door={"status": 500, "times": 99}, retries=1)
SHORT = function(
    "short-calls",
    *(run(f"s{n}", takes_ms=400) for n in range(5)),
    give(var("s4")),
    max_runtime_ms=500,
    needs=["checkpoint"],
)
DEFERS = function(
    "defers", run("a"), defer("later", "deferred", {"key": event("data.key"), "n": 3}), run("b"), needs=["defer"]
)
DEFERRED = function(
    "deferred", run("ran later", gives=event("data.n")), give(var("ran later")), kind="deferred", needs=["defer"]
)


@case("Answers", needs=["streaming"])
async def an_app_that_streams_its_answers(play: Play) -> None:
    output = await play.completes(STREAMS)

    assert output == ["a", ["b", "c"]]
    assert (play.steps()[0], sorted(play.steps()[1:])) == ("a", ["b", "c"])


@case("Answers", needs=["streaming"])
async def an_app_that_streams_its_errors(play: Play) -> None:
    await play.completes(STREAMS_ERROR)

    assert "broken stream" in play.noted("caught")["message"]
    assert play.steps() == ["shaky", "shaky", "after"]


@case("Answers")
async def an_app_that_is_busy_is_called_again(play: Play) -> None:
    assert await play.completes(BUSY) == "in"
    assert play.steps() == ["a"]


@case("Answers")
async def an_app_that_is_not_found_for_a_moment_is_called_again(play: Play) -> None:
    assert await play.completes(LOST) == "in"
    assert play.steps() == ["a"]


@case("Answers")
async def an_app_that_never_answers_well_fails_the_run_with_a_reason(play: Play) -> None:
    ended = await play.run(SHUT)

    assert ended["status"] == "Failed"
    assert "500" in str(ended["output"])
    assert play.steps() == []


@case("Answers", needs=["checkpoint"])
async def a_call_that_ends_early_for_its_time_is_gone_on_with(play: Play) -> None:
    output = await play.completes(SHORT)

    assert output == "s4"
    assert play.steps() == [f"s{n}" for n in range(5)]


@case("Answers", needs=["defer"])
async def a_deferred_function_starts_when_the_run_has_ended(play: Play) -> None:
    await play.completes(DEFERS)
    await play.until_noted("ran later")

    assert play.steps() == ["a", "b", "ran later"]
