"""Failures: tries, waits between them, errors that end it, errors that user code catches, failure functions."""

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import attempt, event, failing, give, note, run, throw, var

RETRIED = function("step-retried", run("before"), run("shaky", fails=failing(2)), run("after"), give(var("shaky")))
NEVER = function("step-never", run("before"), run("hopeless", fails=failing(9, "no luck")), run("after"), retries=1)
CAUGHT = function(
    "step-error-caught",
    attempt("error", run("hopeless", fails=failing(9, "no luck"))),
    note("caught", var("error")),
    run("plan-b"),
    give(var("plan-b")),
    retries=1,
)
ONE_TRY = function("no-retries", run("hopeless", fails=failing(9)), retries=0)
STEP_FINAL = function("step-non-retriable", run("final", fails=failing(9, "never again", kind="non_retriable")))
STEP_LATER = function("step-retry-after", run("busy", fails=failing(1, "busy", kind="retry_after", after_s=2)))
CODE_RETRIED = function("code-retried", run("once"), note("tried"), throw(failing(2, "oops")), give("done"))
CODE_FINAL = function("code-non-retriable", note("tried"), throw(failing(9, "stop", kind="non_retriable")))
CODE_LATER = function(
    "code-retry-after", note("tried"), throw(failing(1, "later", kind="retry_after", after_s=2)), give("done")
)
CODE_NEVER = function("code-never", run("once"), note("tried"), throw(failing(9, "always")), retries=2)
HANDLED = function(
    "with-on-failure",
    run("charge", fails=failing(9, "card refused", kind="non_retriable")),
    on_failure=[
        note(
            "seen", [event("name"), event("data.error.message"), event("data.event.data.order"), event("data.run_id")]
        ),
        run("refund"),
    ],
)
UNNEEDED = function("on-failure-unneeded", run("fine"), on_failure=[run("refund")])


@case("Failures and retries")
async def a_failing_step_is_tried_again_and_its_neighbours_are_not(play: Play) -> None:
    output = await play.completes(RETRIED)

    assert output == "shaky"
    assert play.steps() == ["before", "shaky", "shaky", "shaky", "after"]
    assert play.attempts("shaky") == [0, 1, 2]


@case("Failures and retries")
async def a_step_that_keeps_failing_fails_the_run_with_its_error(play: Play) -> None:
    ended = await play.run(NEVER)

    assert ended["status"] == "Failed"
    assert "no luck" in str(ended["output"])
    assert play.steps() == ["before", "hopeless", "hopeless"]


@case("Failures and retries")
async def user_code_catches_the_error_of_a_step_and_goes_another_way(play: Play) -> None:
    output = await play.completes(CAUGHT)

    assert output == "plan-b"
    assert "no luck" in play.noted("caught")["message"]
    assert play.steps() == ["hopeless", "hopeless", "plan-b"]


@case("Failures and retries")
async def without_retries_a_step_is_tried_once(play: Play) -> None:
    ended = await play.run(ONE_TRY)

    assert ended["status"] == "Failed"
    assert play.steps() == ["hopeless"]


@case("Failures and retries")
async def a_non_retriable_error_in_a_step_is_final(play: Play) -> None:
    ended = await play.run(STEP_FINAL)

    assert (ended["status"], play.steps()) == ("Failed", ["final"])
    assert "never again" in str(ended["output"])


@case("Failures and retries")
async def a_step_that_asks_for_a_later_try_gets_it_no_sooner(play: Play) -> None:
    await play.completes(STEP_LATER)

    first, second = (line["ms"] for line in play.lines(at="step"))
    assert second - first >= 1_900


@case("Failures and retries")
async def failing_code_outside_steps_is_tried_again_without_repeating_steps(play: Play) -> None:
    output = await play.completes(CODE_RETRIED)

    assert output == "done"
    assert play.steps() == ["once"]
    assert play.attempts("tried")[-1] == 2


@case("Failures and retries")
async def a_non_retriable_error_outside_steps_ends_the_run_at_once(play: Play) -> None:
    ended = await play.run(CODE_FINAL)

    assert ended["status"] == "Failed"
    assert play.attempts("tried") == [0]
    assert "stop" in str(ended["output"])


@case("Failures and retries")
async def code_that_asks_for_a_later_try_gets_it_no_sooner(play: Play) -> None:
    output = await play.completes(CODE_LATER)

    first, second = (line["ms"] for line in play.lines(at="note"))
    assert output == "done"
    assert second - first >= 1_900


@case("Failures and retries")
async def code_that_keeps_failing_is_tried_as_often_as_the_function_says(play: Play) -> None:
    ended = await play.run(CODE_NEVER)

    assert ended["status"] == "Failed"
    assert [number for number in play.attempts("tried") if number > 0] == [1, 2]
    assert play.steps() == ["once"]


@case("Failures and retries")
async def the_failure_function_is_told_the_error_and_the_event_of_the_failed_run(play: Play) -> None:
    ended = await play.run(HANDLED, {"order": 17})
    await play.until_noted("refund")

    name, message, order, run_id = play.noted("seen")
    assert (name, order, run_id) == ("inngest/function.failed", 17, ended["run_id"])
    assert "card refused" in message
    assert play.steps() == ["charge", "refund"]


@case("Failures and retries")
async def the_failure_function_of_a_completed_run_is_not_called(play: Play) -> None:
    await play.completes(UNNEEDED)
    await play.taken()

    assert play.steps() == ["fine"]
