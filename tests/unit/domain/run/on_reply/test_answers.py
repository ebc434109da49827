"""Answers as a whole: the end, function errors, and answers that cannot be understood (protocol 11, 14.1)."""

import json
from datetime import timedelta

import pytest

from app.domain.protocol.opcodes import Op, OpCode
from app.domain.protocol.reply import Failed, Finished
from app.domain.run.effects import FinishRun, Ignore, RetryItem, SettleItem, StartRun
from app.domain.run.state import RunStatus
from tests.unit.domain.run.scene import ERROR, Scene, enqueued, planned, ran, sleeping

GO_NULL = Finished(b"null", sdk="go:v0.15.1")


def test_a_200_ends_the_run_with_its_result() -> None:
    scene = Scene()
    assert scene.answer("start", Finished(b"7")) == [StartRun(), FinishRun(RunStatus.COMPLETED, b"7")]
    assert scene.answer("start", Finished(b"7")) == [Ignore("ended")]


def test_a_200_ends_the_run_on_a_targeted_call_too() -> None:
    scene = Scene()
    scene.reply("start", planned("a"), planned("b"))
    scene.answer("step:b", Finished(b"1"))
    assert scene.run.status is RunStatus.COMPLETED


def test_null_from_go_on_a_targeted_call_is_not_the_end() -> None:
    scene = Scene()
    scene.reply("start", planned("a"))
    for attempt in (1, 2):
        scene.answer("step:a", GO_NULL)
        assert scene.run.items["step:a"].attempt == attempt
    end = scene.answer("step:a", GO_NULL)[-1]
    assert isinstance(end, FinishRun)
    assert end.code == "app_response_invalid"


def test_null_from_go_is_the_end_for_the_loser_of_a_race() -> None:
    scene = Scene()
    scene.reply("start", planned("a", is_race=True), planned("b", is_race=True))
    scene.reply("step:a", ran("a"))
    scene.answer("step:b", GO_NULL)
    assert scene.run.status is RunStatus.COMPLETED


def test_null_from_go_after_a_checkpoint_of_the_target_goes_on() -> None:
    scene = Scene()
    scene.reply("start", planned("a"))
    scene.checkpoint("step:a", ran("a"))
    assert enqueued(scene.answer("step:a", GO_NULL)) == ["discover:again:2"]


def test_a_function_error_is_tried_again_and_then_fails_the_run() -> None:
    scene = Scene()
    failed = Failed(ERROR, "app_error")
    for _ in range(2):
        assert isinstance(scene.answer("start", failed)[-1], RetryItem)
    assert scene.answer("start", failed) == [FinishRun(RunStatus.FAILED, ERROR, "app_error")]


@pytest.mark.parametrize(
    "failed", [Failed(ERROR, "x", no_retry=True), Failed(ERROR, "x", is_fatal=True, no_retry=False)]
)
def test_a_final_or_fatal_error_fails_the_run_at_once(failed: Failed) -> None:
    assert Scene().answer("start", failed) == [StartRun(), FinishRun(RunStatus.FAILED, ERROR, "x")]


def test_retry_after_is_kept() -> None:
    effects = Scene().answer("start", Failed(ERROR, "x", retry_after=timedelta(minutes=3)))
    assert effects[-1] == RetryItem("start", 1, timedelta(minutes=3), ERROR)


@pytest.mark.parametrize("ops", [(), (Op(OpCode.NONE, "", ""),)])
def test_an_empty_answer_with_nothing_else_live_is_tried_again_and_then_fails_the_run(ops: tuple[Op, ...]) -> None:
    scene = Scene()
    for attempt in (1, 2):
        scene.reply("start", *ops)
        assert scene.run.items["start"].attempt == attempt
    end = scene.reply("start", *ops)[-1]
    assert isinstance(end, FinishRun)
    assert end.code == "app_response_invalid"
    assert json.loads(end.output or b"")["data"] is None


def test_an_empty_answer_beside_other_work_settles_its_item() -> None:
    scene = Scene()
    scene.reply("start", sleeping("z"), sleeping("y"))
    scene.time("sleep:y")
    assert scene.reply("discover:1") == [SettleItem("discover:1")]


def test_a_targeted_call_that_forgets_its_step_is_tried_again() -> None:
    scene = Scene()
    scene.reply("start", planned("a"), planned("b"))
    scene.reply("step:a")
    assert scene.run.items["step:a"].attempt == 1


def test_the_loser_of_a_race_may_be_left_behind() -> None:
    scene = Scene()
    scene.reply("start", planned("a", is_race=True), planned("b", is_race=True))
    scene.reply("step:a", ran("a"))
    effects = scene.reply("step:b")
    assert "step:b" not in scene.items
    assert enqueued(effects) != []
    assert scene.run.group is None


def test_an_answer_for_an_item_that_is_gone_changes_nothing() -> None:
    scene = Scene()
    scene.reply("start", ran("a"))
    assert scene.reply("start", ran("b")) == [Ignore("late")]
    assert scene.reply("nobody", ran("b")) == [Ignore("late")]


def test_the_first_206_fixes_the_request_version() -> None:
    scene = Scene(version=1)
    scene.reply("start", ran("a"))
    scene.version = 2
    scene.reply("discover:1", ran("b"))
    assert scene.run.request_version == 1
