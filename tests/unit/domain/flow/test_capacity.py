"""Who is let through when keys have room for some."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.flow.capacity import Candidate, Gate, KeyState, admit
from app.domain.flow.concurrency import Kind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B = UUID(int=1), UUID(int=2)


def item(
    number: int, *gates: Gate, lane: int = 1, run: int | None = None, call: bool = True, starts: bool = False
) -> Candidate:
    return Candidate(UUID(int=100 + number), UUID(int=run or 500 + number), UUID(int=lane), call, starts, gates)


def test_the_first_in_a_lane_get_the_slots_and_the_refusal_names_the_key() -> None:
    gate = Gate(A, Kind.CALLS, 2)
    keys = {A: KeyState(live=1)}
    out = admit([item(1, gate), item(2, gate), item(3, gate)], keys, NOW)
    assert [c.item_id.int for c in out.admitted] == [101]
    assert out.refused[UUID(int=1)].key_id == A
    assert keys[A].live == 2


def test_a_refused_item_takes_no_slot_of_its_other_keys() -> None:
    keys = {A: KeyState(), B: KeyState(live=1)}
    out = admit([item(1, Gate(A, Kind.CALLS, 5), Gate(B, Kind.CALLS, 1))], keys, NOW)
    assert out.admitted == []
    assert keys[A].live == 0


def test_refused_items_take_no_room_and_who_comes_after_the_room_is_gone_is_not_looked_at() -> None:
    full, free = Gate(A, Kind.CALLS, 1), Gate(B, Kind.CALLS, 5)
    keys = {A: KeyState(live=1), B: KeyState()}
    out = admit([item(1, full), item(2, free, lane=2), item(3, free, lane=3)], keys, NOW, room=1)
    assert [c.item_id.int for c in out.admitted] == [102]
    assert [lane.int for lane in sorted(out.looked)] == [1, 2]
    assert (keys[A].live, keys[B].live) == (1, 1)


def test_timers_pass_a_full_key() -> None:
    keys = {A: KeyState(live=1)}
    gate = Gate(A, Kind.CALLS, 1)
    out = admit([item(1, gate), item(2, gate, call=False)], keys, NOW)
    assert [c.item_id.int for c in out.admitted] == [102]


def test_a_run_that_has_its_slot_needs_no_other() -> None:
    gate = Gate(A, Kind.RUNS, 1)
    keys = {A: KeyState(live=1, runs={UUID(int=7)})}
    out = admit([item(1, gate, run=7), item(2, gate, lane=2)], keys, NOW)
    assert [c.item_id.int for c in out.admitted] == [101]
    assert out.run_slots == []


def test_a_run_that_has_its_slot_does_not_wait_behind_runs_that_wait_for_its_end() -> None:
    gate = Gate(A, Kind.RUNS, 1)
    keys = {A: KeyState(live=1, runs={UUID(int=7)})}
    out = admit([item(1, gate, run=8), item(2, gate, run=9), item(3, gate, run=7)], keys, NOW)
    assert [c.item_id.int for c in out.admitted] == [103]
    assert out.refused[UUID(int=1)].key_id == A


def test_a_throttle_counts_first_items_only_and_says_when() -> None:
    gate = Gate(A, Kind.THROTTLE, 0, timedelta(seconds=5))
    keys = {A: KeyState()}
    out = admit([item(1, gate, starts=True), item(2, gate), item(3, gate, lane=2, starts=True)], keys, NOW)
    assert [c.item_id.int for c in out.admitted] == [101, 102]
    assert out.refused[UUID(int=2)].at == NOW + timedelta(seconds=5)
    assert keys[A].tat == NOW + timedelta(seconds=5)


def test_lanes_of_one_shared_key_are_compared_with_their_own_limits() -> None:
    keys = {A: KeyState(live=3)}
    out = admit([item(1, Gate(A, Kind.CALLS, 2)), item(2, Gate(A, Kind.CALLS, 5), lane=2)], keys, NOW)
    assert [c.item_id.int for c in out.admitted] == [102]


@given(
    items=st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.booleans()), max_size=60),
    caps=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    live=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
@settings(max_examples=200, deadline=None)
def test_no_key_ever_passes_its_limit_and_nothing_overtakes_in_its_lane(
    items: list[tuple[int, bool, bool]], caps: tuple[int, int], live: tuple[int, int]
) -> None:
    gates = (Gate(A, Kind.CALLS, caps[0]), Gate(B, Kind.CALLS, caps[1]))
    keys = {A: KeyState(live=live[0]), B: KeyState(live=live[1])}
    chosen = [
        item(n, *[g for g, wanted in zip(gates, (a, b), strict=True) if wanted], lane=lane)
        for n, (lane, a, b) in enumerate(items)
    ]
    out = admit(chosen, keys, NOW)
    for key, cap, before in ((A, caps[0], live[0]), (B, caps[1], live[1])):
        assert keys[key].live <= max(cap, before)
    admitted = {c.item_id for c in out.admitted}
    for lane in {c.lane_id for c in chosen}:
        in_lane = [c.item_id in admitted for c in chosen if c.lane_id == lane]
        assert in_lane == sorted(in_lane, reverse=True)
