"""Each opcode on its own: what one answer does to a run (protocol 12.2)."""

import json
from datetime import timedelta

import pytest

from app.domain import limits
from app.domain.ids import to_ulid
from app.domain.protocol.opcodes import Op, OpCode, read_ops
from app.domain.run.effects import (
    Effect,
    EnqueueItem,
    FinishRun,
    Ignore,
    InvokeFunction,
    OpenPause,
    OpenStep,
    RetryItem,
    RetryStep,
    SaveStep,
    SetRequestVersion,
    SettleItem,
    StartRun,
    StoreRequest,
)
from app.domain.run.finish import DISCOVERIES_PER_STEP, FREE_DISCOVERIES
from app.domain.run.happenings import Fetched
from app.domain.run.on_reply.ops import HANDLERS
from app.domain.run.state import ItemKind, RunStatus, StepKind, StepState
from tests.unit.domain.run.scene import ERROR, NOW, Scene, enqueued, failed_step, fresh, planned, ran, sleeping, waiting

FIRST = [StartRun(), SetRequestVersion(2)]
STEP_ERROR = b'{"error":' + ERROR + b"}"


def test_every_opcode_has_a_handler() -> None:
    assert set(HANDLERS) == set(OpCode)


def test_a_result_is_saved_and_the_run_goes_on_with_a_discovery() -> None:
    assert Scene().reply("start", ran("a")) == [
        *FIRST,
        SaveStep("a", StepKind.RUN, "a", StepState.COMPLETED, b'{"data":1}'),
        SettleItem("start"),
        EnqueueItem("discover:1", ItemKind.DISCOVER),
    ]


def test_a_flush_of_results_is_a_sequence_with_one_discovery() -> None:
    scene = Scene()
    effects = scene.reply("start", ran("a"), ran("b"))
    assert enqueued(effects) == ["discover:2"]
    assert not scene.run.is_planned
    assert scene.run.completed == 2


def test_a_step_keeps_its_first_result_and_the_run_still_goes_on() -> None:
    scene = Scene()
    scene.checkpoint("start", ran("a"))
    effects = scene.reply("start", ran("a", b'{"data":2}'))
    assert not any(isinstance(effect, SaveStep) for effect in effects)
    assert enqueued(effects) == ["discover:again:2"]


def test_a_planned_step_gets_a_call_of_its_own_and_is_no_parallelism() -> None:
    scene = Scene()
    effects = scene.reply("start", planned("a"))
    assert effects[2:] == [
        OpenStep("a", StepKind.RUN, "a", StepState.PLANNED),
        EnqueueItem("step:a", ItemKind.STEP, "a"),
        SettleItem("start"),
    ]
    assert enqueued(scene.reply("step:a", ran("a"))) == ["discover:1"]


def test_an_error_is_tried_again_as_the_same_item() -> None:
    scene = Scene()
    effects = scene.reply("start", failed_step("a"))
    assert effects[2] == RetryStep("a", StepKind.RUN, "a", ERROR)
    retry = effects[3]
    assert isinstance(retry, RetryItem)
    assert (retry.key, retry.attempt, retry.error) == ("start", 1, ERROR)
    assert scene.run.items["start"].attempt == 1
    assert scene.run.steps["a"].state is StepState.RETRYING


def test_the_last_error_becomes_the_memo_and_the_function_goes_on() -> None:
    scene = Scene()
    for _ in range(2):
        scene.reply("start", failed_step("a"))
    assert scene.reply("start", failed_step("a")) == [
        SaveStep("a", StepKind.RUN, "a", StepState.FAILED, STEP_ERROR),
        SettleItem("start"),
        EnqueueItem("discover:1", ItemKind.DISCOVER),
    ]
    assert scene.run.items["discover:1"].attempt == 0


@pytest.mark.parametrize("is_final", [True, False])
def test_a_final_failure_is_never_tried_again(is_final: bool) -> None:
    scene = Scene()
    effects = scene.reply("start", failed_step("a", is_final=is_final), no_retry=None if is_final else True)
    assert scene.run.steps["a"].state is StepState.FAILED
    assert enqueued(effects) == ["discover:1"]


def test_a_targeted_call_cannot_use_up_the_attempts_of_another_step() -> None:
    scene = Scene()
    scene.reply("start", planned("a"), planned("b"))
    scene.reply("step:a", failed_step("b"))
    assert scene.run.items["step:b"].attempt == 0
    assert scene.run.items["step:a"].attempt == 1


def test_an_inline_step_that_failed_can_be_planned_by_the_next_call() -> None:
    scene = Scene()
    scene.reply("start", failed_step("a"))
    assert enqueued(scene.reply("start", planned("a"))) == ["step:a"]


def test_a_sleep_waits_in_an_item() -> None:
    scene = Scene()
    effects = scene.reply("start", sleeping("z", 90))
    assert effects[2:] == [
        OpenStep("z", StepKind.SLEEP, "z", StepState.SLEEPING),
        EnqueueItem("sleep:z", ItemKind.SLEEP, "z", after=timedelta(seconds=90)),
        SettleItem("start"),
    ]


def test_a_sleep_until_a_date_keeps_the_date_even_in_the_past() -> None:
    then = NOW - timedelta(days=1)
    effects = Scene().reply("start", Op(OpCode.SLEEP, "z", "z", wake_at=then))
    assert EnqueueItem("sleep:z", ItemKind.SLEEP, "z", at=then) in effects


def test_a_sleep_reported_again_keeps_its_first_end() -> None:
    scene = Scene()
    scene.reply("start", sleeping("z", 90), sleeping("y", 5))
    scene.time("sleep:y")
    assert scene.reply("discover:1", sleeping("z", 5_000)) == [SettleItem("discover:1")]


@pytest.mark.parametrize("what", ["sleep", "event", "signal", "invoke"])
def test_nothing_waits_longer_than_366_days(what: str) -> None:
    long = timedelta(days=366, seconds=1)
    op = sleeping("x", long.total_seconds()) if what == "sleep" else waiting("x", what, long)
    end = Scene().reply("start", sleeping("ok"), op)[-1]
    assert isinstance(end, FinishRun)
    assert end.code == "timeout_too_long"
    error = json.loads(end.output or b"")
    assert error["name"] == "InngestErrTimeoutTooLong"
    assert error["data"] is None


def test_a_wait_for_an_event_opens_its_pause_and_timeout_before_anything_else() -> None:
    effects = Scene().reply("start", planned("a"), waiting("w"))
    opened = [effect for effect in effects if isinstance(effect, (OpenStep, OpenPause, EnqueueItem))]
    assert opened[1:3] == [
        OpenPause("w", StepKind.WAIT_FOR_EVENT, event="shop/paid", expression="true"),
        EnqueueItem("timeout:w", ItemKind.TIMEOUT, "w", after=timedelta(hours=1)),
    ]
    assert opened[-1] == EnqueueItem("step:a", ItemKind.STEP, "a")


@pytest.mark.parametrize(
    ("what", "after"), [("event", None), ("signal", timedelta(days=365)), ("invoke", timedelta(days=365))]
)
def test_a_wait_without_a_time_expires_at_once_or_after_a_year(what: str, after: timedelta | None) -> None:
    effects = Scene().reply("start", waiting("w", what, None))
    assert EnqueueItem("timeout:w", ItemKind.TIMEOUT, "w", after=after) in effects


def test_a_signal_says_what_to_do_about_another_waiter() -> None:
    effects = Scene().reply("start", waiting("w", "signal"))
    assert OpenPause("w", StepKind.WAIT_FOR_SIGNAL, signal="go", conflict="replace") in effects


def test_an_invoke_waits_under_its_correlation_and_then_starts_the_child() -> None:
    scene = Scene()
    effects = scene.reply("start", waiting("i", "invoke"))
    correlation = f"{to_ulid(scene.run.id)}.i"
    assert effects.index(OpenPause("i", StepKind.INVOKE, correlation=correlation)) < effects.index(
        InvokeFunction("i", "i", "app-f", b"{}")
    )
    assert scene.run.steps["i"].state is StepState.INVOKING


@pytest.mark.parametrize("code", [OpCode.WAIT_FOR_EVENT, OpCode.WAIT_FOR_SIGNAL, OpCode.INVOKE_FUNCTION])
def test_a_wait_for_nothing_is_unreadable(code: OpCode) -> None:
    scene = Scene()
    scene.reply("start", Op(code, "w", "w"))
    assert scene.run.items["start"].attempt == 1
    assert scene.run.steps == {}


def test_run_complete_saves_what_precedes_it_and_ends_the_run() -> None:
    complete = Op(OpCode.RUN_COMPLETE, "0737", "", payload=b'{"n":1}')
    scene = Scene()
    effects = scene.reply("start", ran("a"), ran("b"), complete)
    assert [type(effect) for effect in effects[2:]] == [SaveStep, SaveStep, FinishRun]
    assert effects[-1] == FinishRun(RunStatus.COMPLETED, b'{"n":1}')
    assert scene.run.items == {}


def test_an_app_out_of_time_is_called_again() -> None:
    scene = Scene()
    request = Op(OpCode.DISCOVERY_REQUEST, "", "")
    assert enqueued(scene.reply("start", request)) == ["discover:again:2"]
    assert enqueued(scene.reply("discover:again:2", request)) == ["discover:again:3"]


def test_an_app_that_asks_for_ever_is_ended() -> None:
    scene = Scene(fresh(max_steps=1))
    request = Op(OpCode.DISCOVERY_REQUEST, "", "")
    for _ in range(FREE_DISCOVERIES + DISCOVERIES_PER_STEP):
        scene.reply(scene.items[0], request)
    assert scene.run.status is RunStatus.FAILED


@pytest.mark.parametrize("code", [OpCode.NONE, OpCode.DEFER_ADD, OpCode.DEFER_ABORT])
def test_lazy_ops_do_nothing_beside_others(code: OpCode) -> None:
    scene = Scene()
    effects = scene.reply("start", ran("a"), Op(code, "d", ""))
    assert enqueued(effects) == ["discover:1"]
    assert not scene.run.is_planned
    assert set(scene.run.steps) == {"a"}


def test_the_answer_of_a_durable_endpoint_is_the_result_of_its_run() -> None:
    said = {
        "op": "SyncRunComplete",
        "id": "s",
        "data": {"data": {"status": 201, "headers": {}, "body": "ok", "duration": 7}},
    }
    (op,) = read_ops([said], NOW)
    end = Scene().reply("start", ran("a"), op)[-1]
    assert end == FinishRun(RunStatus.COMPLETED, b'{"body":"ok","duration":7,"headers":{},"status":201}')


def test_a_step_the_app_does_not_find_is_asked_for_again() -> None:
    scene = Scene()
    scene.reply("start", planned("a"))
    scene.reply("step:a", Op(OpCode.STEP_NOT_FOUND, "a", "a"))
    assert scene.run.items["step:a"].attempt == 1


def _ends_with(effects: list[Effect], code: str) -> None:
    end = effects[-1]
    assert isinstance(end, FinishRun)
    assert (end.status, end.code) == (RunStatus.FAILED, code)
    assert enqueued(effects) == []


def test_too_many_steps_end_the_run() -> None:
    scene = Scene(fresh(max_steps=2))
    scene.reply("start", ran("a"), ran("b"))
    _ends_with(scene.reply("discover:2", ran("c")), "too_many_steps")


def test_too_many_ops_in_one_answer_end_the_run() -> None:
    ops = (ran(f"s{n}") for n in range(limits.MAX_OPS_PER_ANSWER + 1))
    _ends_with(Scene(fresh(max_steps=10_000)).reply("start", *ops), "too_many_steps")


def test_a_result_over_4_mib_ends_the_run() -> None:
    memo = b'{"data":"' + b"x" * limits.MAX_OUTPUT_BYTES + b'"}'
    _ends_with(Scene().reply("start", ran("a", memo)), "output_too_large")


def test_a_state_over_32_mib_ends_the_run() -> None:
    scene = Scene(fresh(state_bytes=limits.MAX_STATE_BYTES - 15))
    scene.reply("start", ran("a"))
    _ends_with(scene.reply("discover:1", ran("b")), "state_too_large")


def test_a_step_named_twice_in_one_answer_ends_the_run() -> None:
    _ends_with(Scene().reply("start", planned("a"), planned("a")), "duplicate_step")


def test_a_request_is_kept_apart_from_what_people_read_and_made_as_an_item_of_its_own() -> None:
    scene = Scene()
    opts = b'{"auth_key":"secret","url":"http://x.test"}'
    effects = scene.reply("start", Op(OpCode.AI_GATEWAY, "g", "g", raw_opts=opts))
    assert effects[2:] == [
        OpenStep("g", StepKind.AI, "g", StepState.PLANNED, opts=b'{"auth_key":"(hidden)","url":"http://x.test"}'),
        StoreRequest("g", opts),
        EnqueueItem("gateway:g", ItemKind.GATEWAY, "g"),
        SettleItem("start"),
    ]
    retry = scene.happen(Fetched("gateway:g", None, ERROR))
    assert [type(effect) for effect in retry] == [RetryStep, RetryItem]
    assert scene.happen(Fetched("gateway:g", None, ERROR, is_final=True)) == [
        SaveStep("g", StepKind.AI, "", StepState.FAILED, STEP_ERROR),
        SettleItem("gateway:g"),
        EnqueueItem("discover:1", ItemKind.DISCOVER),
    ]
    assert scene.happen(Fetched("gateway:g", b'{"data":1}')) == [Ignore("late")]


def test_a_request_without_an_address_is_an_unreadable_answer() -> None:
    effects = Scene().reply("start", Op(OpCode.GATEWAY, "g", "g", raw_opts=b"{}"))
    assert any(isinstance(effect, RetryItem) for effect in effects)
