"""The order of the sample shop, from the SDK's send to the finished run, as the shop and the API saw it."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from tests.protocol.sdks import App
from tests.protocol.world import World

ORDER = "o-fulfilled"
RESULT = {
    "order_id": ORDER,
    "reservation": f"res_{ORDER}",
    "cents": 1440,
    "charge_id": f"ch_{ORDER}",
    "tracking": f"trk_{ORDER}",
    "confirmation": "sent to ann@example.com",
}
STEPS = {"reserve-stock", "check-fraud", "price-tax", "charge-payment", "pack-order", "send-confirmation"}


@dataclass(frozen=True, slots=True)
class Fulfilled:
    """An order whose run has ended."""

    shop: App
    event_id: str
    run: dict[str, Any]


@pytest.fixture(scope="session")
def placed(world: World) -> str:
    """Give the id of the event of an order; it is placed once for all tests of a world."""
    return world.registered("shop").place_order(ORDER)


@pytest.fixture(scope="session")
def fulfilled(world: World, placed: str) -> Fulfilled:
    """Give the order when it went through."""
    return Fulfilled(world.app("shop"), placed, world.api.await_end(placed))


def test_an_order_sent_through_the_sdk_starts_one_run_of_the_function(world: World, placed: str) -> None:
    world.api.await_run(placed)

    assert len(world.api.runs_of(placed)) == 1


def test_an_order_sent_through_the_sdk_completes_with_the_functions_result(fulfilled: Fulfilled) -> None:
    assert (fulfilled.run["status"], fulfilled.run["output"]) == ("Completed", RESULT)


def test_every_step_is_done_once_and_a_refused_payment_is_repeated_until_it_is_taken(fulfilled: Fulfilled) -> None:
    done = Counter((line["step"], line["outcome"]) for line in fulfilled.shop.effects(ORDER))

    assert done == Counter({(step, "done"): 1 for step in STEPS} | {("charge-payment", "refused"): 2})


def test_the_attempts_of_a_payment_are_counted_from_zero_and_keep_the_wait_the_bank_asks_for(
    fulfilled: Fulfilled,
) -> None:
    charges = [line for line in fulfilled.shop.effects(ORDER) if line["step"] == "charge-payment"]

    assert [line["attempt"] for line in charges] == [0, 1, 2]
    assert all(gap >= 2.0 for gap in _gaps(charges))


def test_the_parcel_is_packed_only_after_the_sleep(fulfilled: Fulfilled) -> None:
    lines = {line["step"]: line for line in fulfilled.shop.effects(ORDER) if line["outcome"] == "done"}

    assert _gaps([lines["charge-payment"], lines["pack-order"]])[0] >= 2.0


def test_an_order_placed_twice_is_fulfilled_once(world: World, fulfilled: Fulfilled) -> None:
    before = fulfilled.shop.effects(ORDER)
    again = fulfilled.shop.place_order(ORDER)
    probe = fulfilled.shop.place_order("o-after-the-second")
    world.api.await_run(probe)  # Events of one app are taken in order, so the second order has been looked at.

    assert world.api.runs_of(again) == []
    assert fulfilled.shop.effects(ORDER) == before


def test_the_run_object_says_which_event_and_when(world: World, fulfilled: Fulfilled) -> None:
    run = fulfilled.run

    assert run["event_id"] == fulfilled.event_id
    assert run["run_started_at"] <= run["ended_at"]
    assert run["environment_id"] == str(world.tenant.scope.environment_id)
    assert (run["cron"], run["batch_id"], run["original_run_id"]) == (None, None, None)


def test_the_runs_of_the_event_are_the_one_run(world: World, fulfilled: Fulfilled) -> None:
    (run,) = world.api.runs_of(fulfilled.event_id)

    assert run == fulfilled.run


def test_the_event_is_kept_as_it_was_sent(world: World, fulfilled: Fulfilled) -> None:
    event = world.api.call("GET", f"/v1/events/{fulfilled.event_id}").json()["data"]

    assert (event["name"], event["id"], event["internal_id"]) == ("shop/order.placed", ORDER, fulfilled.event_id)
    assert event["data"]["order_id"] == ORDER


def test_the_kept_steps_and_events_can_be_fetched_for_a_call_that_does_not_carry_them(
    world: World, fulfilled: Fulfilled
) -> None:
    run_id = fulfilled.run["run_id"]
    actions = world.api.call("GET", f"/v0/runs/{run_id}/actions").json()
    batch = world.api.call("GET", f"/v0/runs/{run_id}/batch").json()

    # Six steps with a result each, and the sleep without one.
    assert len(actions) == len(STEPS) + 1
    results = [memo["data"] for memo in actions.values() if memo is not None]
    assert RESULT["charge_id"] in results and RESULT["tracking"] in results
    assert [event["data"]["order_id"] for event in batch] == [ORDER]


def _gaps(lines: list[dict[str, Any]]) -> list[float]:
    """Seconds between neighbouring lines."""
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    return [(b - a).total_seconds() for a, b in pairwise(times)]
