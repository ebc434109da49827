"""Flow control: how often, how many at once, in which order."""

from itertools import pairwise
from typing import Any

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Line, Play
from tests.protocol.matrix.script import event, give, run, sleep, var

FLOW: dict[str, Any] = {"needs": ["flow"]}
ALL_N = {"$events": "n"}
ONE_AT_A_TIME = function(
    "one-at-a-time", run("busy", takes_ms=150), run("busy too", takes_ms=150), concurrency=[{"limit": 1}]
)
ONE_PER_KEY = function(
    "one-per-key",
    run("busy", gives=event("data.who"), takes_ms=200),
    concurrency=[{"limit": 1, "key": "event.data.who"}],
)
BATCH = function("batch", run("took", gives=ALL_N), give(var("took")), batch={"max": 3, "timeout_s": 60}, **FLOW)
BATCH_TIME = function(
    "batch-time", run("took", gives=ALL_N), give(var("took")), batch={"max": 50, "timeout_s": 1}, **FLOW
)
BATCH_KEY = function(
    "batch-key",
    run("took", gives=ALL_N),
    give(var("took")),
    batch={"max": 2, "timeout_s": 60, "key": "event.data.who"},
    **FLOW,
)
DEBOUNCED = function(
    "debounced", run("took", gives=event("data.n")), give(var("took")), debounce={"period_s": 2}, **FLOW
)
THROTTLED = function("throttled", run("started"), throttle={"limit": 1, "period_s": 2}, **FLOW)
LIMITED = function(
    "rate-limited", run("started"), rate_limit={"limit": 1, "period_s": 3600, "key": "event.data.who"}, **FLOW
)
IDEMPOTENT = function("idempotent", run("started"), idempotency="event.data.order", **FLOW)
PRIORITY = function(
    "priority",
    run("busy", gives=event("data.n"), until=event("data.until")),
    concurrency=[{"limit": 1}],
    priority="event.data.n",
    **FLOW,
)
SINGLE_SKIP = function(
    "single-skip", run("started"), sleep("nap", 3_600_000), run("after"), singleton={"mode": "skip"}, **FLOW
)
SINGLE_CANCEL = function(
    "single-cancel",
    run("started"),
    sleep("nap", 3_600_000),
    run("after"),
    singleton={"mode": "cancel", "key": "event.data.who"},
    **FLOW,
)


def _overlaps(lines: list[Line]) -> int:
    """How many steps were in flight at once at most."""
    now = most = 0
    for line in sorted(lines, key=lambda line: line["order"]):
        now += {"step": 1, "end": -1}[line["at"]]
        most = max(most, now)
    return most


@case("Flow control")
async def with_a_concurrency_of_one_steps_of_different_runs_never_overlap(play: Play) -> None:
    ids = [await play.send(ONE_AT_A_TIME) for _ in range(3)]
    for event_id in ids:
        await play.ends(event_id)

    assert _overlaps(play.lines()) == 1
    assert sorted(play.steps()) == ["busy"] * 3 + ["busy too"] * 3


@case("Flow control")
async def a_concurrency_with_a_key_holds_back_only_runs_of_the_same_key(play: Play) -> None:
    keys = {who: f"{play.key} {who}" for who in ("ann", "bob")}
    ids = [await play.send(ONE_PER_KEY, {"who": who, "key": keys[who]}) for who in ("ann", "bob") * 3]
    for event_id in ids:
        await play.ends(event_id)

    for key in keys.values():
        assert (_overlaps(play.lines(key=key)), len(play.steps(key))) == (1, 3)


@case("Flow control", needs=["flow"])
async def a_full_batch_is_one_run_with_all_its_events_in_order(play: Play) -> None:
    first = await play.send(BATCH, {"n": 0})
    for n in (1, 2):
        await play.send(BATCH, {"n": n})
    (ended,) = await play.ends(first)

    assert ended["output"] == [0, 1, 2]
    assert play.steps() == ["took"]


@case("Flow control", needs=["flow"])
async def a_batch_that_does_not_fill_starts_when_its_time_is_up(play: Play) -> None:
    first = await play.send(BATCH_TIME, {"n": 7})
    (ended,) = await play.ends(first)

    assert ended["output"] == [7]


@case("Flow control", needs=["flow"])
async def a_batch_with_a_key_collects_each_key_apart(play: Play) -> None:
    ids = [await play.send(BATCH_KEY, {"n": n, "who": n % 2}) for n in range(4)]
    outputs = [(await play.ends(event_id))[0]["output"] for event_id in ids[:2]]

    assert outputs == [[0, 2], [1, 3]]


@case("Flow control", needs=["flow"])
async def of_events_in_quick_succession_a_debounced_function_takes_the_last(play: Play) -> None:
    *_, last = await play.send_all(DEBOUNCED, [{"n": n} for n in range(3)])
    (ended,) = await play.ends(last)
    await play.taken()

    assert ended["output"] == 2
    assert play.steps() == ["took"]


@case("Flow control", needs=["flow"])
async def throttled_starts_are_spread_over_the_period(play: Play) -> None:
    ids = [await play.send(THROTTLED) for _ in range(3)]
    for event_id in ids:
        await play.ends(event_id)

    moments = sorted(line["ms"] for line in play.lines(at="step"))
    # The package for Python always sends a burst of one, which lets the second start follow at once.
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert len(moments) == 3
    assert max(gaps) >= 1_000


@case("Flow control", needs=["flow"])
async def above_its_rate_limit_a_function_is_not_started(play: Play) -> None:
    first = await play.send(LIMITED, {"who": 1})
    await play.ends(first)
    refused = await play.send(LIMITED, {"who": 1})
    other = await play.send(LIMITED, {"who": 2})
    await play.ends(other)

    assert await play.runs_of(refused) == []
    assert play.steps() == ["started", "started"]


@case("Flow control", needs=["flow"])
async def with_an_idempotency_key_a_second_event_of_the_same_value_starts_nothing(play: Play) -> None:
    await play.ends(await play.send(IDEMPOTENT, {"order": "o-1"}))
    again = await play.send(IDEMPOTENT, {"order": "o-1"})
    await play.ends(await play.send(IDEMPOTENT, {"order": "o-2"}))

    assert await play.runs_of(again) == []
    assert play.steps() == ["started", "started"]


@case("Flow control", needs=["flow"])
async def of_runs_that_wait_for_a_slot_the_one_of_higher_priority_comes_first(play: Play) -> None:
    with play.held() as file:
        holder = await play.send(PRIORITY, {"n": 0, "until": file, "key": f"{play.key} holder"})
        await play.until_noted("busy", key=f"{play.key} holder")
        low, high = await play.send(PRIORITY, {"n": -100}), await play.send(PRIORITY, {"n": 100})
        for event_id in (low, high):
            await play.until_run(event_id)
    for event_id in (holder, low, high):
        await play.ends(event_id)

    runs = {(await play.runs_of(event_id))[0]["run_id"]: event_id for event_id in (low, high)}
    assert [runs[line["run"]] for line in play.lines(at="step")] == [high, low]


@case("Flow control", needs=["flow"])
async def a_singleton_skips_what_comes_while_it_runs(play: Play) -> None:
    first = await play.send(SINGLE_SKIP)
    await play.until_noted("started")
    second = await play.send(SINGLE_SKIP)
    await play.taken()

    assert await play.is_open(first)
    assert [run_ for run_ in await play.runs_of(second) if run_["status"] != "Skipped"] == []
    assert play.steps() == ["started"]


@case("Flow control", needs=["flow"])
async def a_singleton_that_cancels_gives_way_to_what_comes_later(play: Play) -> None:
    first = await play.send(SINGLE_CANCEL, {"who": 1})
    await play.until_noted("started")
    second = await play.send(SINGLE_CANCEL, {"who": 1})
    (former,) = await play.ends(first)
    await play.until_noted("started", times=2)

    assert former["status"] == "Cancelled", former
    assert await play.is_open(second)
