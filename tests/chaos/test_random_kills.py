"""Web and worker are killed at moments nobody chose, while orders run; every order completes, nothing committed is redone.

The moments come from a seed, which is in the name of the test. What a process was doing at such a moment still depends on
the machine, so a failure need not come again; the seed gives the same load and the same pauses.
"""

import random
import time

import pytest

from tests.chaos.conftest import IS_FULL, OpenHouse

SEEDS = range(20) if IS_FULL else range(1)
ORDERS, KILLS = (20, 12) if IS_FULL else (6, 3)
LONGEST_PAUSE_S = 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_orders_complete_though_processes_are_killed_at_random(seed: int, house_of: OpenHouse) -> None:
    dice = random.Random(seed)
    with house_of() as house:
        order_ids = [f"o{n}" for n in range(ORDERS)]
        for order_id in order_ids[: ORDERS // 2]:
            house.place(order_id)
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.0, LONGEST_PAUSE_S))  # The moment of the kill is the input of this test.
            house.kill(dice.choice(["worker", "web"]))
        for order_id in order_ids[ORDERS // 2 :]:
            house.place(order_id)
        house.await_completed(ORDERS)

        # Every kill may cost each order the steps under way, at most the two of the parallel pair.
        house.check_orders(order_ids, repeats=KILLS * ORDERS * 2)
