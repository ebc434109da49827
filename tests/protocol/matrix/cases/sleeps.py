"""Sleeps."""

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import give, parallel, run, sleep, sleep_until, var

SLEEPS = function("sleeps", run("before"), sleep("nap", 2000), run("after"))
UNTIL = function("sleeps-until", run("before"), sleep_until("nap", 2000), run("after"))
PAST = function("sleeps-until-the-past", run("before"), sleep_until("nap", -60_000), run("after"))
TWICE = function("sleeps-twice", sleep("nap", 1000), run("between"), sleep("nap", 1000), run("after"))
TOGETHER = function(
    "sleeps-together",
    parallel("both", [sleep("one", 1000)], [sleep("two", 2000)], [run("work")]),
    run("after"),
    give(var("after")),
)


@case("Sleeps")
async def a_sleep_lasts_as_long_as_it_says_and_nothing_is_repeated(play: Play) -> None:
    await play.completes(SLEEPS)

    assert play.steps() == ["before", "after"]
    assert play.moment("after") - play.moment("before") >= 1_900


@case("Sleeps")
async def a_sleep_until_a_moment_lasts_until_then(play: Play) -> None:
    await play.completes(UNTIL)

    # Some SDKs send whole seconds.
    assert play.steps() == ["before", "after"]
    assert play.moment("after") - play.moment("before") >= 900


@case("Sleeps")
async def a_sleep_until_a_moment_in_the_past_is_over_at_once(play: Play) -> None:
    await play.completes(PAST)

    assert play.steps() == ["before", "after"]


@case("Sleeps")
async def two_sleeps_of_the_same_id_are_two_sleeps(play: Play) -> None:
    await play.completes(TWICE)

    assert play.steps() == ["between", "after"]
    assert play.moment("after") - play.moment("between") >= 900


@case("Sleeps")
async def sleeps_in_a_group_last_as_long_as_the_longest(play: Play) -> None:
    await play.completes(TOGETHER)

    assert play.steps() == ["work", "after"]
    assert play.moment("after") - play.moment("work") >= 1_000
