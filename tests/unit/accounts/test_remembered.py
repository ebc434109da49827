"""Answers that are believed for a short time."""

import asyncio

import pytest

from app.accounts.resolve import FRESH, FRESH_NO, Remembered


class World:
    """A question whose answer, clock and failures the test decides."""

    def __init__(self, most: int = 10) -> None:
        self.now = 0.0
        self.truth: dict[str, str] = {}
        self.asked: list[str] = []
        self.fails = False
        self.remembered: Remembered[str, str] = Remembered(self.ask, now=lambda: self.now, most=most)

    async def ask(self, key: str) -> str | None:
        self.asked.append(key)
        await asyncio.sleep(0)
        if self.fails:
            raise ConnectionError
        return self.truth.get(key)


async def test_a_yes_is_believed_for_five_seconds() -> None:
    world = World()
    world.truth["a"] = "yes"
    assert await world.remembered.get("a") == "yes"
    world.truth.clear()
    world.now = FRESH - 0.01
    assert await world.remembered.get("a") == "yes"
    world.now = FRESH
    assert await world.remembered.get("a") is None
    assert world.asked == ["a", "a"]


async def test_a_no_is_believed_for_one_second() -> None:
    world = World()
    assert await world.remembered.get("a") is None
    world.truth["a"] = "yes"
    world.now = FRESH_NO - 0.01
    assert await world.remembered.get("a") is None
    world.now = FRESH_NO
    assert await world.remembered.get("a") == "yes"


async def test_guessing_many_keys_neither_fills_the_memory_nor_pushes_out_good_ones() -> None:
    world = World(most=10)
    world.truth["good"] = "yes"
    await world.remembered.get("good")
    for number in range(1000):
        await world.remembered.get(f"guess {number}")
    assert world.remembered.size <= 20
    asked = len(world.asked)
    assert await world.remembered.get("good") == "yes"
    assert len(world.asked) == asked


async def test_a_failed_question_is_asked_again() -> None:
    world = World()
    world.truth["a"] = "yes"
    world.fails = True
    with pytest.raises(ConnectionError):
        await world.remembered.get("a")
    world.fails = False
    assert await world.remembered.get("a") == "yes"


async def test_one_who_gives_up_does_not_stop_the_others() -> None:
    world = World()
    world.truth["a"] = "yes"
    first, second = (asyncio.create_task(world.remembered.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "yes"
    assert world.asked == ["a"]
