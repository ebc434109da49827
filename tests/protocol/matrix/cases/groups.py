"""Parallel groups, races, nested groups."""

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import attempt, failing, give, note, parallel, run, sleep, var

THREE = function(
    "three", run("before"), parallel("all", [run("a")], [run("b")], [run("c")]), run("after"), give(var("all"))
)
WIDE = function("wide", parallel("all", *([run(f"w{n}", gives=n)] for n in range(40))), give(var("all")))
CHAINS = function(
    "chains",
    parallel("all", [run("a1"), run("a2", gives=[var("a1")]), run("a3", gives=[var("a2")])], [run("b1"), run("b2")]),
    give(var("all")),
)
NESTED = function(
    "nested",
    parallel("all", [parallel("inner", [run("a")], [run("b")]), run("c")], [run("d")]),
    run("after"),
    give(var("all")),
)
MIXED = function("mixed", parallel("all", [run("work")], [sleep("nap", 1000), run("woken")]), give(var("all")))
SHAKY = function(
    "shaky-member", parallel("all", [run("a")], [run("b", fails=failing(2))], [run("c")]), give(var("all"))
)
FAILED = function(
    "failed-member",
    attempt("error", parallel("all", [run("a")], [run("b", fails=failing(9, "b is broken"))], [run("c")])),
    note("caught", var("error")),
    run("after"),
    retries=1,
)
SETTLED = function(
    "settled",
    parallel("all", [run("a")], [run("b", fails=failing(9, "b is broken", kind="non_retriable"))], mode="settled"),
    run("after"),
    give(var("all")),
    needs=["settled"],
)
RACE = function(
    "race",
    parallel("winner", [run("fast")], [sleep("slow", 4000), run("late")], mode="race"),
    run("after"),
    give(var("winner")),
    needs=["race"],
)
ROWS = function(
    "group-after-group", parallel("one", [run("a")], [run("b")]), parallel("two", [run("c")], [run("d")]), run("e")
)


@case("Parallel steps")
async def the_members_of_a_group_run_once_each_and_their_results_keep_their_places(play: Play) -> None:
    output = await play.completes(THREE)

    steps = play.steps()
    assert output == ["a", "b", "c"]
    assert (steps[0], sorted(steps[1:4]), steps[4:]) == ("before", ["a", "b", "c"], ["after"])


@case("Parallel steps")
async def forty_steps_side_by_side_run_once_each(play: Play) -> None:
    output = await play.completes(WIDE)

    assert output == list(range(40))
    assert sorted(play.steps()) == sorted(f"w{n}" for n in range(40))


@case("Parallel steps")
async def each_branch_of_a_group_is_a_row_of_its_own(play: Play) -> None:
    output = await play.completes(CHAINS)

    steps = play.steps()
    assert output == [[["a1"]], "b2"]
    assert sorted(steps) == ["a1", "a2", "a3", "b1", "b2"]
    assert [step for step in steps if step[0] == "a"] == ["a1", "a2", "a3"]


@case("Parallel steps")
async def a_group_within_a_group(play: Play) -> None:
    output = await play.completes(NESTED)

    steps = play.steps()
    assert output == ["c", "d"]
    assert sorted(steps) == ["a", "after", "b", "c", "d"]
    assert steps.index("c") > max(steps.index("a"), steps.index("b"))
    assert steps[-1] == "after"


@case("Parallel steps")
async def a_branch_that_sleeps_does_not_hold_up_the_others(play: Play) -> None:
    output = await play.completes(MIXED)

    assert output == ["work", "woken"]
    assert play.steps() == ["work", "woken"]


@case("Parallel steps")
async def a_member_that_fails_is_tried_again_alone(play: Play) -> None:
    output = await play.completes(SHAKY)

    assert output == ["a", "b", "c"]
    assert sorted(play.steps()) == ["a", "b", "b", "b", "c"]


@case("Parallel steps")
async def a_member_that_fails_for_good_is_an_error_of_the_group_that_user_code_catches(play: Play) -> None:
    await play.completes(FAILED)

    steps = play.steps()
    assert "b is broken" in play.noted("caught")["message"]
    assert [steps.count(step) for step in ("a", "b", "c", "after")] == [1, 2, 1, 1]


@case("Parallel steps", needs=["settled"])
async def a_group_that_waits_for_all_keeps_results_and_errors(play: Play) -> None:
    output = await play.completes(SETTLED)

    assert output == ["a", {"error": "b is broken"}]
    assert sorted(play.steps()) == ["a", "after", "b"]


@case("Parallel steps", needs=["race"])
async def a_race_goes_on_when_the_first_has_ended(play: Play) -> None:
    output = await play.completes(RACE)

    # Some SDKs end the run at once, some when the loser has ended, too.
    assert output == "fast"
    assert play.steps()[:2] == ["fast", "after"]


@case("Parallel steps")
async def a_group_after_a_group(play: Play) -> None:
    await play.completes(ROWS)

    steps = play.steps()
    assert (sorted(steps[:2]), sorted(steps[2:4]), steps[4:]) == (["a", "b"], ["c", "d"], ["e"])
