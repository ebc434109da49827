"""Steps: each once, in order, with what the earlier ones gave."""

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import event, give, log, note, run, var

ROW = function(
    "row", run("a", gives=1), run("b", gives={"after": var("a")}), run("c"), give([var("a"), var("b"), var("c")])
)
SAME = function(
    "same-id",
    *(run("again", gives=number, keep=f"again {number}") for number in range(3)),
    give([var("again 0"), var("again 1"), var("again 2")]),
)
LONG = function("long-row", *(run(f"s{number}", gives=number) for number in range(30)), give(var("s29")))
EMPTY = function("no-steps", note("called", event("data.word")), give({"said": event("data.word")}))
KNOWS = function("knows-its-run", run("who", gives={"run": {"$run_id": 1}}), give(var("who")))
LOGS = function("logs", log("a line of the logger"), run("a"), log("a line at the end"), needs=["logger"])
BETWEEN = function("between", note("start"), run("a"), note("between", var("a")), run("b"), note("end", var("b")))


@case("Steps")
async def steps_run_once_in_order_and_later_ones_see_what_earlier_ones_gave(play: Play) -> None:
    output = await play.completes(ROW)

    assert output == [1, {"after": 1}, "c"]
    assert play.steps() == ["a", "b", "c"]


@case("Steps")
async def the_same_step_id_used_again_is_another_step(play: Play) -> None:
    output = await play.completes(SAME)

    assert output == [0, 1, 2]
    assert play.steps() == ["again"] * 3


@case("Steps")
async def thirty_steps_in_a_row_run_once_each(play: Play) -> None:
    output = await play.completes(LONG)

    assert output == 29
    assert play.steps() == [f"s{number}" for number in range(30)]


@case("Steps")
async def a_function_without_steps_is_called_once_and_its_result_is_kept(play: Play) -> None:
    output = await play.completes(EMPTY, {"word": "hello"})

    assert output == {"said": "hello"}
    assert play.attempts("called") == [0]


@case("Steps")
async def user_code_is_told_the_id_of_its_run(play: Play) -> None:
    run_ = await play.run(KNOWS)

    assert run_["output"] == {"run": run_["run_id"]}
    assert {line["run"] for line in play.lines()} == {run_["run_id"]}


@case("Steps")
async def code_between_steps_sees_the_kept_results_on_every_replay(play: Play) -> None:
    await play.completes(BETWEEN)

    assert play.steps() == ["a", "b"]
    assert {line["value"] for line in play.lines(at="note") if line["what"] == "between"} == {"a"}
    assert play.noted("end") == "b"


@case("Steps", needs=["logger"])
async def what_user_code_logs_arrives_in_the_apps_own_log(play: Play) -> None:
    await play.completes(LOGS)

    assert "a line of the logger" in play.logged()
    assert "a line at the end" in play.logged()
