"""The replay core alone: which results go back to user code when, and what a call does next."""

from typing import Any

import pytest

from stepwell import NonRetriableError, StepError
from stepwell._answer import Answer
from stepwell._call import Call
from stepwell._event import EventMessage
from stepwell._replay import Execute, Missing, Outcome, Release, Replay, Save, Wish, hash_step_id

A, B, C = (hash_step_id(name, 0) for name in "abc")


def call(**parts: Any) -> Call:
    event = EventMessage(name="t/go")
    defaults: dict[str, Any] = {
        "run_id": "r",
        "event": event,
        "events": [event],
        "steps": {},
        "stack": [],
        "target": None,
        "attempt": 0,
        "max_attempts": 3,
        "plan_only": False,
        "use_api": False,
        "fn_id": "f",
        "qi_id": "q",
    }
    return Call(**{**defaults, **parts})


def run(name: str) -> Wish:
    return Wish(name, "StepRun", work=lambda: None)


def memos(*ids: str) -> dict[str, Any]:
    return {each: {"data": each} for each in ids}


def test_results_go_back_in_the_order_in_which_steps_finished() -> None:
    replay = Replay(call(steps=memos(A, B), stack=[B, A]))
    a = replay.discover(run("a"))
    assert replay.release_ready() == []
    b = replay.discover(run("b"))
    assert replay.release_ready() == [b, a]
    assert (a.outcome, b.outcome) == (Outcome(A), Outcome(B))


def test_a_finished_step_that_is_never_asked_for_holds_up_nothing() -> None:
    replay = Replay(call(steps=memos(A, B), stack=[A, B]))
    b = replay.discover(run("b"))
    assert replay.release_ready() == []
    assert replay.decide() == Release(b)
    a = replay.discover(run("a"))
    assert replay.release_ready() == [a]


def test_without_a_known_order_results_go_back_as_they_are_asked_for() -> None:
    replay = Replay(call(steps=memos(A, B), stack=[]))
    slots = [replay.discover(run("b")), replay.discover(run("a"))]
    assert replay.release_ready() == slots


def test_a_single_new_step_is_executed_and_several_are_planned() -> None:
    replay = Replay(call())
    a = replay.discover(run("a"))
    assert replay.decide() == Execute(a)
    replay.discover(Wish("b", "Sleep", name="1s"))
    answer = replay.decide()
    assert isinstance(answer, Answer)
    assert answer.status == 206
    assert [op in answer.body for op in (b"StepPlanned", b"Sleep")] == [True, True]


def test_a_step_that_is_no_longer_wanted_is_not_reported() -> None:
    replay = Replay(call())
    a, b = replay.discover(run("a")), replay.discover(run("b"))
    replay.withdraw(b)
    assert replay.decide() == Execute(a)


def test_a_targeted_call_executes_only_its_target() -> None:
    replay = Replay(call(target=B))
    replay.discover(run("a"))
    assert isinstance(replay.decide(), Missing)
    b = replay.discover(run("b"))
    assert replay.decide() == Execute(b)


@pytest.mark.parametrize("parts", [{"plan_only": True}, {"target": A}, {"fn_id": None}, {"qi_id": ""}])
def test_steps_are_only_checkpointed_where_the_call_allows_it(parts: dict[str, Any]) -> None:
    replay = Replay(call(**parts), checkpointing=True)
    assert isinstance(replay.settle(replay.discover(run("a")), Outcome(1), 0), Answer)
    assert isinstance(Replay(call(), checkpointing=True).settle(replay.discover(run("b")), Outcome(1), 0), Save)


def test_user_code_gets_a_value_as_later_calls_will_see_it() -> None:
    replay = Replay(call(), checkpointing=True)
    slot = replay.discover(run("a"))
    replay.settle(slot, Outcome({"pair": (1, 2)}), 0)
    assert slot.outcome is None
    replay.saved(slot)
    assert slot.outcome == Outcome({"pair": [1, 2]})


@pytest.mark.parametrize(
    ("memo", "value"),
    [
        ({"data": None}, None),
        ({"data": {"error": 1}}, {"error": 1}),
        (None, None),
        ([1], [1]),
        ({"data": 1, "name": "t/x"}, {"data": 1, "name": "t/x"}),
    ],
)
def test_memos_are_unwrapped_only_in_their_exact_shapes(memo: Any, value: Any) -> None:
    replay = Replay(call(steps={A: memo}, stack=[A]))
    slot = replay.discover(run("a"))
    replay.release_ready()
    assert slot.outcome == Outcome(value)


@pytest.mark.parametrize("error", [{"name": "E", "message": "m", "data": None}, "m"])
def test_a_stored_error_is_raised_afresh_each_time(error: Any) -> None:
    replay = Replay(call(steps={A: {"error": error}}, stack=[A]))
    slot = replay.discover(run("a"))
    replay.release_ready()
    assert slot.outcome is not None
    for _ in range(2):
        with pytest.raises(StepError, match="m"):
            slot.outcome.unwrap()


def test_an_id_that_collides_with_a_repeated_one_is_refused() -> None:
    replay = Replay(call())
    replay.discover(run("a"))
    replay.discover(run("a"))
    with pytest.raises(NonRetriableError, match="colon"):
        replay.discover(run("a:1"))


@pytest.mark.parametrize(
    ("attempt", "most", "op"), [(0, 3, b"StepError"), (2, 3, b"StepFailed"), (9, None, b"StepError")]
)
def test_the_last_attempt_is_final_if_the_server_says_how_many_there_are(attempt: int, most: Any, op: bytes) -> None:
    replay = Replay(call(attempt=attempt, max_attempts=most))
    answer = replay.settle(replay.discover(run("a")), Outcome(error=RuntimeError("x")), 0)
    assert isinstance(answer, Answer)
    assert op in answer.body
