"""Functions that invoke functions."""

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import attempt, event, failing, give, invoke, note, parallel, run, sleep, var

DOUBLES = function(
    "doubles",
    note("called with", [event("name"), event("data.n")]),
    run("double", gives={"of": event("data.n")}),
    give({"doubled": var("double")}),
    triggers=[],
)
FAILS = function("invoked-fails", run("no", fails=failing(9, "child says no", kind="non_retriable")), triggers=[])
SLOW = function("invoked-slow", sleep("long", 3_600_000), triggers=[])
CALLS = function(
    "calls", invoke("child", "doubles", value={"n": 21, "key": event("data.key")}), run("after"), give(var("child"))
)
CALLS_OTHER = function(
    "calls-other",
    invoke("child", "doubles", app="@other@", value={"n": 5, "key": "for the other app"}),
    give(var("child")),
)
CALLS_FAILING = function(
    "calls-failing", attempt("error", invoke("child", "invoked-fails")), note("caught", var("error")), run("after")
)
CALLS_UNCAUGHT = function("calls-uncaught", invoke("child", "invoked-fails"), run("after"))
CALLS_SLOW = function(
    "calls-slow", attempt("error", invoke("child", "invoked-slow", ms=1000)), note("caught", var("error")), run("after")
)
CALLS_NOBODY = function(
    "calls-nobody", attempt("error", invoke("child", "no-such-function")), note("caught", var("error")), run("after")
)
CALLS_MANY = function(
    "calls-many",
    parallel("all", *([invoke(f"child {n}", "doubles", value={"n": n, "key": "calls-many"})] for n in range(5))),
    give(var("all")),
)


@case("Invoke")
async def an_invoked_function_gets_the_payload_and_gives_its_result(play: Play) -> None:
    output = await play.completes(CALLS)

    assert output == {"doubled": {"of": 21}}
    assert play.noted("called with") == ["inngest/function.invoked", 21]
    assert play.steps() == ["double", "after"]


@case("Invoke")
async def a_function_of_another_app_can_be_invoked(play: Play) -> None:
    output = await play.completes(CALLS_OTHER)

    assert output == {"doubled": {"of": 5}}
    assert play.steps() == []


@case("Invoke")
async def the_failure_of_an_invoked_function_is_an_error_that_user_code_catches(play: Play) -> None:
    await play.completes(CALLS_FAILING)

    assert "child says no" in play.noted("caught")["message"]
    assert play.steps() == ["after"]


@case("Invoke")
async def the_failure_of_an_invoked_function_fails_the_run_if_it_is_not_caught(play: Play) -> None:
    ended = await play.run(CALLS_UNCAUGHT)

    assert ended["status"] == "Failed"
    assert "child says no" in str(ended["output"])
    assert play.steps() == []


@case("Invoke")
async def an_invoked_function_that_takes_too_long_is_an_error(play: Play) -> None:
    await play.completes(CALLS_SLOW)

    assert "Timed out" in play.noted("caught")["message"]
    assert play.steps() == ["after"]


@case("Invoke")
async def invoking_a_function_that_does_not_exist_is_an_error(play: Play) -> None:
    await play.completes(CALLS_NOBODY)

    assert "no-such-function" in play.noted("caught")["message"]
    assert play.steps() == ["after"]


@case("Invoke")
async def functions_invoked_side_by_side_each_give_their_own_result(play: Play) -> None:
    output = await play.completes(CALLS_MANY)

    assert output == [{"doubled": {"of": n}} for n in range(5)]
