"""Happenings other than answers, and that there is an answer to every one in every state."""

import json
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest

from app.domain.protocol.opcodes import Op, OpCode
from app.domain.protocol.reply import Failed, Finished, Ops
from app.domain.run.advance import advance
from app.domain.run.effects import ClosePause, EnqueueItem, FinishRun, Ignore, ResetAttempt, SaveStep, SettleItem
from app.domain.run.fold import fold_all
from app.domain.run.happenings import (
    CancelRequested,
    Checkpointed,
    DeadlineDue,
    Happening,
    Poisoned,
    Replied,
    Resumed,
    TimerDue,
)
from app.domain.run.state import Item, ItemKind, Run, RunStatus, Step, StepKind, StepState
from tests.unit.domain.run.scene import ERROR, NOW, Scene, enqueued, failed_step, fresh, planned, ran, sleeping, waiting


def test_a_sleep_ends_with_the_memo_null() -> None:
    scene = Scene()
    scene.reply("start", sleeping("z"))
    assert scene.time("sleep:z") == [
        SaveStep("z", StepKind.SLEEP, "", StepState.COMPLETED, b"null"),
        SettleItem("sleep:z"),
        EnqueueItem("discover:1", ItemKind.DISCOVER),
    ]
    assert scene.time("sleep:z") == [Ignore("late")]


@pytest.mark.parametrize("what", ["event", "signal"])
def test_a_wait_that_expires_has_the_memo_null(what: str) -> None:
    scene = Scene()
    scene.reply("start", waiting("w", what))
    effects = scene.time("timeout:w")
    assert isinstance(effects[0], SaveStep)
    assert effects[0].memo == b"null"
    assert effects[1] == ClosePause("w", "timed_out")
    assert scene.resume("w") == [Ignore("known")]


def test_an_invoke_that_expires_fails_with_an_error_go_can_replay() -> None:
    scene = Scene()
    scene.reply("start", waiting("i", "invoke"))
    saved = scene.time("timeout:i")[0]
    assert isinstance(saved, SaveStep)
    assert saved.state is StepState.FAILED
    error = json.loads(saved.memo)["error"]
    assert error["name"] == "InngestInvokeTimeoutError"
    assert error["message"] == "Timed out waiting for invoked function to complete"
    assert error["data"] is None


@pytest.mark.parametrize("is_error", [True, False])
def test_a_resumed_wait_takes_its_timeout_along(is_error: bool) -> None:
    scene = Scene()
    scene.reply("start", waiting("i", "invoke"))
    effects = scene.resume("i", is_error=is_error)
    state = StepState.FAILED if is_error else StepState.COMPLETED
    assert effects == [
        SaveStep("i", StepKind.INVOKE, "", state, b'{"data":1}'),
        SettleItem("timeout:i"),
        ClosePause("i", "resumed"),
        EnqueueItem("discover:1", ItemKind.DISCOVER),
    ]
    assert scene.time("timeout:i") == [Ignore("late")]
    assert scene.resume("i") == [Ignore("known")]


def test_nothing_resumes_a_step_that_does_not_wait() -> None:
    scene = Scene()
    scene.reply("start", sleeping("z"))
    assert scene.resume("z") == [Ignore("known")]
    assert scene.resume("unheard") == [Ignore("late")]


def test_a_cancel_ends_the_run_with_its_cause() -> None:
    scene = Scene()
    scene.reply("start", planned("a"), sleeping("z"))
    assert scene.happen(CancelRequested("event")) == [FinishRun(RunStatus.CANCELLED, None, "event")]
    assert scene.run.items == {}
    assert {step.state for step in scene.run.steps.values()} == {StepState.CANCELLED}
    assert scene.reply("step:a", ran("a")) == [Ignore("ended")]


def test_a_poisoned_item_fails_its_run() -> None:
    scene = Scene()
    end = scene.happen(Poisoned("start"))[-1]
    assert isinstance(end, FinishRun)
    assert (end.status, end.code) == (RunStatus.FAILED, "poison_work")
    assert Scene().happen(Poisoned("nobody")) == [Ignore("late")]


def test_a_checkpoint_saves_and_counts_attempts_anew_while_the_call_goes_on() -> None:
    scene = Scene()
    scene.reply("start", failed_step("a"))
    effects = scene.checkpoint("start", planned("a"), ran("a"), ran("b"))
    assert [type(effect) for effect in effects] == [SaveStep, SaveStep, ResetAttempt]
    assert scene.items == ["start"]
    assert scene.run.items["start"].attempt == 0
    assert scene.checkpoint("start", ran("a"), ran("b")) == [Ignore("known")]


def test_a_checkpoint_of_a_settled_call_is_late() -> None:
    scene = Scene()
    scene.reply("start", ran("a"))
    assert scene.checkpoint("start", ran("b")) == [Ignore("late")]


def test_a_checkpoint_with_anything_but_results_changes_nothing() -> None:
    scene = Scene()
    assert scene.checkpoint("start", ran("a"), sleeping("z")) == [Ignore("unsupported")]


def test_a_checkpoint_above_a_limit_ends_the_run() -> None:
    scene = Scene(fresh(max_steps=1))
    effects = scene.checkpoint("start", ran("a"), ran("b"))
    assert isinstance(effects[-1], FinishRun)
    assert effects[-1].code == "too_many_steps"


def test_a_result_that_arrives_by_another_call_stops_the_step_from_being_called() -> None:
    scene = Scene(version=1)
    scene.reply("start", planned("a"), sleeping("z"))
    scene.time("sleep:z")
    effects = scene.reply("discover:1", ran("a"))
    assert SettleItem("step:a") in effects
    assert scene.reply("step:a", ran("a")) == [Ignore("late")]


_KINDS = {
    ItemKind.DISCOVER: StepState.PLANNED,
    ItemKind.STEP: StepState.PLANNED,
    ItemKind.SLEEP: StepState.SLEEPING,
    ItemKind.TIMEOUT: StepState.INVOKING,
}


def _runs() -> list[Run]:
    """Sound and unsound runs: every status, every kind of item, every state of its step."""
    runs = []
    for status, kind, state, pending in product(RunStatus, ItemKind, (*StepState, None), (0, 2)):
        steps = {} if state is None else {"x": Step("x", StepKind.INVOKE, state, is_member=pending > 0)}
        group = "g" if pending else None
        item = Item("i", kind, "x", attempt=1)
        runs.append(
            fresh(status=status, steps=steps, items={"i": item}, pending=pending, group=group, request_version=2)
        )
    return runs


def _happenings() -> list[Happening]:
    made: list[Happening] = [CancelRequested("api"), Poisoned("i"), TimerDue("i"), Resumed("x", b"null")]
    made += [Checkpointed("i", (ran("x"),)), Replied("i", Finished(b"1")), Replied("i", Failed(ERROR, "x"))]
    for code in OpCode:
        made.append(Replied("i", Ops((Op(code, "x", "x", event="e", signal="s", function="f"),), 2)))
        made.append(Replied("i", Ops((Op(code, "x", "x"), planned("y"), planned("z")), 2)))
    return made


def test_every_state_has_an_answer_to_every_happening() -> None:
    happenings = _happenings()
    for run in _runs():
        for happening in happenings:
            effects = advance(run, happening, NOW)
            after = fold_all(run, effects)
            assert effects
            if run.is_ended:
                assert effects == [Ignore("ended")]
            elif not after.is_ended:
                assert after.items
            if any(isinstance(effect, FinishRun) for effect in effects):
                assert isinstance(effects[-1], FinishRun)
                assert enqueued(effects) == []


def test_a_run_that_has_not_started_by_its_time_is_cancelled_and_one_that_has_only_loses_the_item() -> None:
    due = DeadlineDue("start_timeout", ItemKind.START_TIMEOUT)
    late = Scene().happen(due)
    assert late == [FinishRun(RunStatus.CANCELLED, None, "start_timeout")]
    assert Scene().happen(replace(due, is_calling=True)) == [SettleItem("start_timeout")]
    scene = Scene()
    scene.reply("start", planned("a"))
    assert scene.happen(due) == [SettleItem("start_timeout")]
    assert scene.items == ["step:a"]


def test_the_time_to_finish_counts_from_the_first_answer_and_keeps_no_run_alive() -> None:
    scene = Scene(fresh(finish_within=timedelta(hours=1)))
    effects = scene.reply("start", planned("a"))
    assert EnqueueItem("finish_timeout", ItemKind.FINISH_TIMEOUT, after=timedelta(hours=1)) in effects
    assert scene.items == ["step:a"]
    assert scene.happen(DeadlineDue("finish_timeout", ItemKind.FINISH_TIMEOUT)) == [
        FinishRun(RunStatus.CANCELLED, None, "finish_timeout")
    ]
