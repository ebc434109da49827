"""The gates before a run, one after the other, on rows held in memory."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.flow import batch, debounce
from app.domain.flow.gates import Arrival, EventRef, Gates, GateState, Outcome, Verdict
from app.domain.ids import EventId, FunctionId, RunId
from app.domain.limits import MAX_BATCH_BYTES
from app.domain.settings import Batch, Debounce, RateLimit, Singleton, SingletonMode

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FUNCTION = FunctionId(UUID(int=3))
S = timedelta(seconds=1)


class Rows:
    """Gate rows and live runs, as the engine would hold them."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.states: dict[UUID, GateState] = {}
        self.live: set[RunId] = set()

    def arrive(
        self, number: int, *, after: timedelta = timedelta(), ts: int = 0, size: int = 10, **data: object
    ) -> Verdict:
        keys = self.gates.keys({"data": data})
        for kind, row_id, key in keys:
            self.states.setdefault(row_id, GateState(row_id, kind, key))
        arrival = Arrival(
            EventRef(EventId(UUID(int=number)), NOW + after), ts or number, size, RunId(UUID(int=1000 + number))
        )
        return self.gates.pass_through(keys, self.states, arrival, self.live, NOW + after)


def test_a_rate_limit_refuses_with_the_time_of_the_next_chance() -> None:
    rows = Rows(Gates(FUNCTION, rate_limit=RateLimit(1, 10 * S, "event.data.user")))
    assert rows.arrive(1, user="a").outcome is Outcome.START
    refused = rows.arrive(2, after=4 * S, user="a")
    assert refused.outcome is Outcome.RATE_LIMITED
    assert "'a'" in refused.detail and "00:00:10" in refused.detail
    assert rows.arrive(3, after=4 * S, user="b").outcome is Outcome.START
    assert rows.arrive(4, after=10 * S, user="a").outcome is Outcome.START


def test_an_idempotency_key_makes_later_events_duplicates_for_a_day() -> None:
    rows = Rows(Gates(FUNCTION, rate_limit=RateLimit(1, timedelta(hours=24), "event.data.order")))
    assert rows.arrive(1, order=7).outcome is Outcome.START
    assert rows.arrive(2, after=timedelta(hours=23), order=7).outcome is Outcome.DUPLICATE
    assert rows.arrive(3, after=timedelta(hours=24), order=7).outcome is Outcome.START


def test_a_rate_limit_key_that_is_false_is_not_counted() -> None:
    rows = Rows(Gates(FUNCTION, rate_limit=RateLimit(1, 10 * S, "event.data.limited")))
    assert [rows.arrive(n, limited=False).outcome for n in range(1, 4)] == [Outcome.START] * 3


def test_a_refused_event_touches_no_later_gate() -> None:
    rows = Rows(Gates(FUNCTION, rate_limit=RateLimit(1, 10 * S), singleton=Singleton(SingletonMode.CANCEL)))
    assert rows.arrive(1).outcome is Outcome.START
    assert rows.arrive(2).outcome is Outcome.RATE_LIMITED
    assert rows.live == {UUID(int=1001)}


def test_a_singleton_that_skips_names_the_run_that_is_there() -> None:
    rows = Rows(Gates(FUNCTION, singleton=Singleton(SingletonMode.SKIP, "event.data.user")))
    rows.arrive(1, user="a")
    skipped = rows.arrive(2, user="a")
    assert (skipped.outcome, skipped.run_id) == (Outcome.SINGLETON, UUID(int=1001))
    assert rows.arrive(3, user="b").outcome is Outcome.START
    rows.live.discard(RunId(UUID(int=1001)))
    assert rows.arrive(4, user="a").outcome is Outcome.START


def test_a_singleton_that_cancels_names_the_run_that_goes() -> None:
    rows = Rows(Gates(FUNCTION, singleton=Singleton(SingletonMode.CANCEL)))
    rows.arrive(1)
    verdict = rows.arrive(2)
    assert (verdict.outcome, verdict.cancels) == (Outcome.START, UUID(int=1001))
    assert rows.arrive(3).cancels == UUID(int=1002)


def test_a_batch_is_full_at_its_size_and_all_events_have_one_run() -> None:
    rows = Rows(Gates(FUNCTION, batch=Batch(3, 60 * S)))
    verdicts = [rows.arrive(n) for n in (1, 2, 3)]
    assert {v.run_id for v in verdicts} == {UUID(int=1001)}
    assert [v.position for v in verdicts] == [0, 1, 2]
    assert [v.starts_batch for v in verdicts] == [None, None, "after"]


def test_a_batch_that_would_grow_too_large_starts_before_the_event() -> None:
    rows = Rows(Gates(FUNCTION, batch=Batch(100, 60 * S)))
    rows.arrive(1, size=MAX_BATCH_BYTES - 5)
    assert rows.arrive(2, size=6).starts_batch == "before"
    assert next(iter(rows.states.values())).size == 1


def test_an_event_that_a_batch_does_not_want_runs_alone() -> None:
    rows = Rows(Gates(FUNCTION, batch=Batch(3, 60 * S, condition="event.data.small")))
    assert rows.arrive(1, small=False).outcome is Outcome.START
    assert rows.arrive(2, small=True).outcome is Outcome.BATCHED


def test_a_cron_passes_batch_rate_limit_and_debounce_by() -> None:
    gates = Gates(FUNCTION, batch=Batch(3, 60 * S), debounce=Debounce(S), rate_limit=RateLimit(1, S))
    assert list(gates.keys({"data": {}}, is_cron=True)) == []


@given(arrivals=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 100)), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_debounce_keeps_the_newest_event_and_never_waits_beyond_its_bounds(arrivals: list[tuple[int, int]]) -> None:
    rule = Debounce(30 * S, timeout=100 * S)
    found: debounce.Open | None = None
    at, winner, best, opened = NOW, 0, 0, NOW
    for number, (gap, ts) in enumerate(arrivals):
        at += gap * S
        if found is not None and found.due_at <= at:
            found = None  # it ran
        if found is None:
            best, opened = -1, at
        found, is_newest = debounce.arrive(rule, found, ts, at)
        if ts >= best:
            best, winner = ts, number
        assert is_newest == (winner == number)
        assert found.due_at <= opened + 100 * S
        assert found.due_at == min(at + 30 * S, opened + 100 * S)


@given(sizes=st.lists(st.integers(1, MAX_BATCH_BYTES), min_size=1, max_size=30), most=st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_no_batch_holds_more_than_its_size_or_its_bytes(sizes: list[int], most: int) -> None:
    rule = Batch(most, 60 * S)
    found: batch.Open | None = None
    for size in sizes:
        if batch.overflows(found, size):
            found = None
        found = batch.arrive(rule, found, size, NOW)
        assert found.size <= most
        assert found.bytes <= MAX_BATCH_BYTES
        if found.due_at <= NOW:
            found = None
