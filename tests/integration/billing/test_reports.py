"""Every execution of a subscriber reaches Stripe's meter once, whatever dies in between."""

import asyncio
import os
import random
from datetime import timedelta

import pytest

from app.billing import checkout, entitlements, meter
from app.billing.plans import GRACE
from app.domain.subscription import StripeAway
from tests.integration.billing.world import ADA, Shop
from tests.stripe_stand_in import SOLD, StripeStandIn

PLANS = list(SOLD)


class Killed(Exception):
    """The worker is gone."""


async def report(shop: Shop) -> int:
    await meter.cut(shop.pool, PLANS)
    return await meter.send(shop.pool, shop.desk.stripe)


async def due_again(shop: Shop) -> None:
    await shop.pool.execute("update meter_slices set due_at = clock() where state = 'waiting'")


async def states(shop: Shop) -> dict[str, int]:
    rows = await shop.pool.fetch(
        "select state, sum(quantity)::int as n from meter_slices where account_id = $1 group by 1", shop.id
    )
    return {row["state"]: row["n"] for row in rows}


async def test_what_is_used_is_reported_once_and_what_was_used_before_paying_is_not(
    shop: Shop, stand_in: StripeStandIn
) -> None:
    await shop.use(40)
    customer = await shop.subscribe("pro")
    assert await report(shop) == 0
    await shop.use(7)
    await shop.use(5, tenant=shop.other)
    assert await report(shop) == 1
    assert await report(shop) == 0
    await shop.use(1)
    await report(shop)
    assert stand_in.reported(customer) == 8
    assert set(stand_in.meter_events) and all(
        e["event_name"] == "stepwell_executions" for e in stand_in.meter_events.values()
    )
    # The neighbour has a plan nobody charges for.
    assert sum(int(e["payload"]["value"]) for e in stand_in.meter_events.values()) == 8


async def test_what_is_used_on_a_plan_that_was_given_or_lost_is_not_charged(
    shop: Shop, stand_in: StripeStandIn
) -> None:
    customer = await shop.subscribe("pro")
    slug = await shop.pool.fetchval("select slug from accounts where id = $1", shop.id)
    for plan in ("business", None):
        async with shop.pool.acquire() as conn, conn.transaction():
            await entitlements.give_plan(conn, shop.desk.house, slug, plan, ADA)
        if plan:
            await shop.use(30)
            await report(shop)
    await report(shop)
    stand_in.fail_payment(customer)
    await checkout.refresh(shop.desk, shop.id)
    await shop.use(5)
    await report(shop)
    await shop.later(GRACE)
    await shop.settle()
    await shop.use(70)
    await report(shop)
    stand_in.pay_open(customer)
    await checkout.refresh(shop.desk, shop.id)
    await shop.use(2)
    await report(shop)
    assert stand_in.reported(customer) == 7


async def test_two_subscribers_are_reported_each_for_their_own(shop: Shop, stand_in: StripeStandIn) -> None:
    mine, theirs = await shop.subscribe("pro"), await shop.subscribe("business", shop.other)
    await shop.use(3)
    await shop.use(11, tenant=shop.other)
    await report(shop)
    assert (stand_in.reported(mine), stand_in.reported(theirs)) == (3, 11)


async def test_an_answer_lost_between_sending_and_marking_counts_nothing_twice(
    shop: Shop, stand_in: StripeStandIn
) -> None:
    customer = await shop.subscribe("pro")
    await shop.use(9)
    stand_in.loses = lambda _method, path: path.endswith("meter_events")
    with pytest.raises(StripeAway):
        await report(shop)
    assert stand_in.reported(customer) == 9
    assert await states(shop) == {"waiting": 9}
    stand_in.loses = lambda _method, _path: False
    stand_in._remembered.clear()  # Stripe has forgotten the request, and knows the identifier.
    await due_again(shop)
    assert await meter.send(shop.pool, shop.desk.stripe) == 1
    assert stand_in.reported(customer) == 9
    assert await states(shop) == {"sent": 9}


@pytest.mark.parametrize("seed", range(20 if os.environ.get("STEPWELL_TEST_SIZE") == "full" else 1))
async def test_workers_killed_anywhere_report_every_execution_once(
    shop: Shop, stand_in: StripeStandIn, seed: int
) -> None:
    customer = await shop.subscribe("pro")
    dice = random.Random(seed)
    used = 0

    class Dying:
        """Stripe as a worker sees it that may be killed before, while or after it sends."""

        async def report(self, *given: object) -> None:
            if dice.random() < 0.3:
                raise Killed
            await shop.desk.stripe.report(*given)  # type: ignore[arg-type]
            if dice.random() < 0.4:
                raise Killed

    for _ in range(8):
        amount = dice.randrange(1, 50)
        used += amount
        await shop.use(amount)
        await asyncio.gather(*(meter.cut(shop.pool, PLANS) for _ in range(2)))
        await asyncio.gather(*(meter.send(shop.pool, Dying()) for _ in range(2)), return_exceptions=True)
        await due_again(shop)
    await meter.send(shop.pool, shop.desk.stripe)
    assert stand_in.reported(customer) == used
    assert await states(shop) == {"sent": used}


async def test_with_stripe_away_reports_wait_and_arrive_later(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    await shop.use(4)
    stand_in.fails = lambda _method, path: path.endswith("meter_events")
    with pytest.raises(StripeAway):
        await report(shop)
    stand_in.fails = lambda _method, _path: False
    await due_again(shop)
    assert await report(shop) == 1
    assert stand_in.reported(customer) == 4


async def test_a_report_that_may_be_there_is_not_sent_once_stripe_may_have_forgotten_it(
    shop: Shop, stand_in: StripeStandIn
) -> None:
    customer = await shop.subscribe("pro")
    await shop.use(4)
    stand_in.loses = lambda _method, path: path.endswith("meter_events")
    with pytest.raises(StripeAway):
        await report(shop)
    stand_in.loses = lambda _method, _path: False
    stand_in.meter_events.clear()
    await shop.pool.execute(
        "update meter_slices set tried_at = tried_at - $1::interval", meter.KNOWN_FOR + timedelta(hours=1)
    )
    await due_again(shop)
    assert await meter.send(shop.pool, shop.desk.stripe) == 0
    assert stand_in.reported(customer) == 0
    assert await states(shop) == {"unsure": 4}


async def test_a_report_that_stripe_refuses_is_kept_and_does_not_stop_the_others(
    shop: Shop, stand_in: StripeStandIn
) -> None:
    mine, theirs = await shop.subscribe("pro"), await shop.subscribe("pro", shop.other)
    await shop.use(4)
    await shop.use(6, tenant=shop.other)
    del stand_in.customers[mine]
    assert await report(shop) == 1
    assert stand_in.reported(theirs) == 6
    assert await states(shop) == {"refused": 4}
