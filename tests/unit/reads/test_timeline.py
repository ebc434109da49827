"""The timeline of runs told step by step."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.reads.timeline.build import build
from app.reads.timeline.drafts import run_state
from app.reads.timeline.facts import CallFacts, Facts, ItemFacts, RunFacts, StepFacts
from app.reads.timeline.rows import dom_id

ZERO = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(ms: float) -> datetime:
    return ZERO + timedelta(milliseconds=ms)


def run(status: Any = "running", ended: Any = None, started: Any = 10.0) -> RunFacts:
    return RunFacts(
        status, "process-order", 7, ZERO, None if started is None else at(started), None if ended is None else at(ended)
    )


def step(
    key: Any, state: Any = "completed", *, kind: Any = "run", created: Any = 0.0, settled: Any = None, **more: Any
) -> StepFacts:
    return StepFacts(key, kind, key, state, at(created), None if settled is None else at(settled), **more)


def call(key: Any, start: Any, ms: Any, outcome: Any = "ok", attempt: Any = 0, *, queued: Any = 0.0) -> CallFacts:
    return CallFacts(key, "i", attempt, at(start), at(start + ms), outcome, queued)


def row(timeline: Any, key: Any) -> Any:
    return next(r for r in timeline.flat() if r.key == key)


def test_attempts_are_bars_with_back_off_between_them() -> None:
    facts = Facts(
        run("completed", ended=6_000),
        [step("pay", created=1_000, settled=6_000)],
        [
            call("pay", 1_000, 500, "error"),
            call("pay", 3_500, 500, "error", 1),
            call("pay", 5_500, 500, "ok", 2, queued=100),
        ],
        [],
        at(9_000),
    )
    pay = row(build(facts), "pay")
    assert [b.kind for b in pay.bars] == ["fail", "back", "fail", "back", "queue", "ok"]
    assert pay.attempts == 3
    assert round(pay.ms) == 5_000
    assert [round(b.ms) for b in pay.bars] == [500, 2_000, 500, 1_400, 100, 500]


def test_the_four_parts_of_the_time_add_up_to_the_whole() -> None:
    facts = Facts(
        run("completed", ended=20_000),
        [
            step("a", created=100, settled=1_000),
            step("nap", kind="sleep", created=1_000, settled=11_000),
            step("pay", created=11_000, settled=20_000),
        ],
        [call("a", 100, 900), call("pay", 11_000, 1_000, "error"), call("pay", 16_000, 4_000, "ok", 1)],
        [],
        at(30_000),
    )
    spent = build(facts).spent
    assert (spent.code_ms, spent.waiting_ms, spent.backoff_ms, spent.platform_ms) == (5_900, 10_000, 4_000, 100)
    assert spent.total_ms == 20_000


def test_a_call_beside_a_sleep_counts_as_code_only() -> None:
    facts = Facts(
        run("completed", ended=10_000),
        [step("nap", kind="sleep", created=0, settled=10_000), step("a", created=0, settled=4_000)],
        [call("a", 0, 4_000)],
        [],
        at(10_000),
    )
    spent = build(facts).spent
    assert (spent.code_ms, spent.waiting_ms) == (4_000, 6_000)


def test_a_call_in_flight_grows_from_its_lease_to_now() -> None:
    facts = Facts(
        run(),
        [step("pay", "planned", created=1_000)],
        [],
        [ItemFacts("step", "pay", 0, at(1_000), at(1_200))],
        at(3_000),
    )
    timeline = build(facts)
    pay = row(timeline, "pay")
    assert [b.kind for b in pay.bars] == ["queue", "run"]
    assert (pay.state, pay.attempts, pay.is_live) == ("running", 1, True)
    assert timeline.rate is not None
    assert timeline.room


def test_a_step_between_attempts_says_when_the_next_one_comes() -> None:
    facts = Facts(
        run(),
        [step("pay", "retrying", created=1_000)],
        [call("pay", 1_000, 500, "error")],
        [ItemFacts("discover", None, 1, at(61_500), None)],
        at(3_000),
    )
    pay = row(build(facts), "pay")
    assert pay.state == "retrying"
    assert (pay.note.kind, pay.note.at) == ("retry", at(61_500))
    assert [b.kind for b in pay.bars] == ["fail", "back"]


def test_steps_opened_together_stand_under_one_bracket() -> None:
    facts = Facts(
        run("completed", ended=2_000),
        [step("a", created=100, settled=900), step("b", created=100, settled=2_000), step("c", created=50, settled=90)],
        [call("a", 120, 780), call("b", 130, 1_870), call("c", 50, 40)],
        [],
        at(2_000),
        groups={"a": 3, "b": 3},
    )
    root = build(facts).root
    assert [r.kind for r in root.children] == ["run", "group"]
    assert [r.key for r in root.children[1].children] == ["a", "b"]


def test_waits_say_how_they_ended() -> None:
    facts = Facts(
        run("completed", ended=9_000),
        [
            step("w1", kind="wait_for_event", created=0, settled=3_000, event_name="order/approved"),
            step("w2", kind="wait_for_event", created=3_000, settled=8_000, event_name="order/paid", is_empty=True),
        ],
        [],
        [],
        at(9_000),
    )
    timeline = build(facts)
    assert (row(timeline, "w1").note.kind, row(timeline, "w1").note.ms) == ("matched", 3_000)
    assert (row(timeline, "w2").note.kind, row(timeline, "w2").note.name) == ("timed_out", "order/paid")


def test_open_steps_of_a_cancelled_run_are_shown_as_cancelled() -> None:
    facts = Facts(
        run("cancelled", ended=5_000), [step("nap", "sleeping", kind="sleep", created=100)], [], [], at(9_000)
    )
    nap = row(build(facts), "nap")
    assert nap.state == "cancelled"
    assert not nap.is_live
    assert nap.bars[-1].end <= 100


def test_failures_come_first_when_there_are_more_rows_than_fit() -> None:
    steps = [step(f"s{n}", "failed" if n == 90 else "completed", created=n, settled=n + 1) for n in range(100)]
    timeline = build(Facts(run("failed", ended=100), steps, [], [], at(100)), limit=10)
    keys = [r.key for r in timeline.root.children]
    assert keys == [*(f"s{n}" for n in range(9)), "s90"]
    assert timeline.left_out == 90


def test_errors_outside_steps_are_drawn_on_the_run_itself() -> None:
    facts = Facts(
        run("failed", ended=3_000),
        [],
        [call(None, 10, 100, "error"), call(None, 2_000, 100, "error", 1)],
        [],
        at(3_000),
    )
    root = build(facts).root
    assert [b.kind for b in root.bars if b.kind in {"fail", "back"}] == ["fail", "back", "fail"]
    assert root.attempts == 2


def test_a_run_with_only_timers_ahead_is_waiting() -> None:
    sleep = ItemFacts("sleep", "nap", 0, at(1e6), None)
    retry = ItemFacts("step", "a", 1, at(1e6), None)
    assert run_state("running", [sleep], at(0)) == "waiting"
    assert run_state("running", [sleep, retry], at(0)) == "retrying"
    assert run_state("running", [ItemFacts("step", "a", 0, at(0), at(0))], at(0)) == "running"
    assert run_state("completed", [], at(0)) == "completed"


def test_any_step_id_becomes_a_harmless_html_id() -> None:
    assert dom_id("abc_DEF-9") == "step-abc_DEF-9"
    hostile = dom_id('"><script>')
    assert hostile.removeprefix("step-").isalnum()
    assert hostile == dom_id('"><script>')
