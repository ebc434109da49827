"""Redis is emptied, or is not there at all: work is delayed at most, never lost."""

import time
from concurrent.futures import ThreadPoolExecutor

import redis

from app.supervise.state import free_port
from tests.chaos.conftest import IS_FULL, OpenHouse
from tests.processes import await_so

ORDERS = 300 if IS_FULL else 100


def test_an_emptied_redis_in_the_middle_of_a_hundred_orders_loses_nothing(house_of: OpenHouse) -> None:
    # A house with a Valkey of its own, since everything in it goes.
    with house_of(REDIS_URL="", SHOP_GRACE_S="3") as house:
        order_ids = [f"o{n}" for n in range(ORDERS)]
        with ThreadPoolExecutor(8) as customers:
            list(customers.map(house.place, order_ids))
        started = time.monotonic()
        await_so(lambda: house.statuses()["running"] > 0, "orders are under way", house.processes)
        with redis.Redis.from_url(house.now.redis_url) as client:
            flushes = 0
            while house.statuses()["completed"] < ORDERS:
                assert client.flushall()
                flushes += 1
                await_so(lambda: True, "", house.processes)
                assert time.monotonic() - started < 120, house.statuses()
        print(f"{ORDERS} orders with {flushes} times FLUSHALL took {time.monotonic() - started:.1f} s")

        assert flushes > 0
        house.check_orders(order_ids, repeats=0)


def test_without_redis_orders_are_taken_and_completed(house_of: OpenHouse) -> None:
    with house_of(REDIS_URL=f"redis://127.0.0.1:{free_port()}") as house:
        started = time.monotonic()
        house.place("o1")
        house.place("o2")
        house.await_completed(2)
        print(f"2 orders without Redis took {time.monotonic() - started:.1f} s")

        house.check_orders(["o1", "o2"], repeats=0)
