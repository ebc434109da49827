"""Redis is emptied: work is delayed at most, never lost. That it may be absent, every storm shows at its start."""

import time

import redis

from tests.chaos.conftest import IS_FULL, OpenHouse
from tests.processes import await_so

ORDERS = 300 if IS_FULL else 100


def test_an_emptied_redis_in_the_middle_of_a_hundred_orders_loses_nothing(house_of: OpenHouse) -> None:
    # A house with a Valkey of its own, since everything in it goes.
    with house_of(REDIS_URL="", grace_s=3.0) as house:
        order_ids = [f"o{n}" for n in range(ORDERS)]
        house.place_together(order_ids)
        started = time.monotonic()
        await_so(lambda: house.statuses()["running"] == ORDERS, "all orders are under way", house.processes)
        flushes = 0
        with redis.Redis.from_url(house.now.redis_url) as client:

            def through() -> bool:
                nonlocal flushes
                flushes += bool(client.flushall())
                return house.statuses()["completed"] == ORDERS

            await_so(through, "all orders complete", house.processes)
        print(f"{ORDERS} orders with {flushes} times FLUSHALL took {time.monotonic() - started:.1f} s, 5 of them waits")

        house.check_orders(order_ids, repeats=0)
