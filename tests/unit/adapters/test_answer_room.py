"""Large answers share a budget: who finds no room waits, and no app keeps it from the others."""

import asyncio

import pytest

from app.adapters.answer_room import AnswerRoom, Taken, this_call, until_committed

pytestmark = pytest.mark.asyncio


async def started(room: AnswerRoom, target: str, octets: int) -> tuple["asyncio.Task[None]", Taken]:
    """Somebody who asks for room, and got as far as they can."""
    taken = Taken()
    task = asyncio.create_task(room.take(target, octets, taken))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task, taken


async def test_who_finds_no_room_waits_until_it_is_given_back() -> None:
    room = AnswerRoom(100)
    _, first = await started(room, "a", 50)
    second, _ = await started(room, "b", 50)
    third, _ = await started(room, "c", 50)
    assert (second.done(), third.done(), room.used, room.waiting) == (True, False, 100, 1)
    first.give_back()
    await third
    assert (room.used, room.waiting) == (100, 0)
    first.give_back()
    assert room.used == 100


async def test_one_target_has_half_of_the_room_and_others_pass_by() -> None:
    room = AnswerRoom(100)
    tasks = [await started(room, "greedy", 25) for _ in range(4)]
    assert [task.done() for task, _ in tasks] == [True, True, False, False]
    other, _ = await started(room, "other", 25)
    assert other.done()
    tasks[0][1].give_back()
    await tasks[2][0]
    assert not tasks[3][0].done()
    tasks[3][0].cancel()


async def test_a_large_one_is_not_passed_for_ever_by_small_ones() -> None:
    room = AnswerRoom(100)
    _, first = await started(room, "a", 30)
    large, _ = await started(room, "b", 90)
    small, _ = await started(room, "c", 10)
    assert (large.done(), small.done()) == (False, False)
    first.give_back()
    await asyncio.gather(large, small)
    assert room.used == 100


async def test_more_than_there_is_can_be_had_alone() -> None:
    room = AnswerRoom(100)
    taken = Taken()
    await room.take("a", 1000, taken)
    assert room.used == 100
    taken.give_back()
    assert room.used == 0


async def test_who_stops_waiting_leaves_nothing_taken() -> None:
    room = AnswerRoom(100)
    _, first = await started(room, "a", 100)
    second, _ = await started(room, "b", 100)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    third, _ = await started(room, "c", 100)
    first.give_back()
    # Cancelled in the moment in which its turn came.
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    assert (room.used, room.waiting) == (0, 0)


async def test_what_is_not_needed_is_given_back_at_once() -> None:
    room = AnswerRoom(100)
    taken = Taken()
    await room.take("a", 80, taken)
    taken.shrink(30)
    assert room.used == 30
    taken.shrink(0)
    assert (room.used, taken.of) == (0, [])


async def test_a_drivers_room_is_kept_until_its_commit_and_everybody_elses_until_the_call_is_over() -> None:
    room = AnswerRoom(100)
    with this_call() as taken:
        await room.take("a", 40, taken)
    assert room.used == 0
    with until_committed():
        with this_call() as taken:
            await room.take("a", 40, taken)
        assert room.used == 40
        with this_call() as taken:
            # A second call of the same item: what the first one brought is of no use any more.
            assert room.used == 0
            await room.take("a", 10, taken)
        assert room.used == 10
    assert room.used == 0
