"""How much room a worker keeps for lanes with limits."""

from app.engine.queue import Looks


def test_a_quarter_of_any_room_is_kept_over_four_looks_while_limited_lanes_are_due() -> None:
    for room in range(1, 20):
        looks = Looks(had_gated=True)
        assert sum(looks.kept(room) for _ in range(4)) == room


def test_nothing_is_kept_of_a_room_too_small_for_quarters_while_no_limited_lane_is_due() -> None:
    looks = Looks()
    assert [looks.kept(room) for room in (1, 2, 3, 3, 2, 1)] == [0] * 6
