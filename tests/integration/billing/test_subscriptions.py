"""From choosing a plan to losing it: what is true at Stripe is what holds here, however we came to hear of it."""

import asyncio
from datetime import timedelta

import pytest

from app.billing import checkout, read_back
from app.billing.checkout import NothingToChange, PlanAlready, PlanUnknown
from app.billing.plans import GRACE
from app.domain.subscription import StripeAway
from app.store import billing
from tests.integration.billing.world import ADA, Shop
from tests.stripe_stand_in import StripeStandIn


async def versions(shop: Shop) -> list[int]:
    rows = await shop.pool.fetch("select catalogue_version from environments where account_id = $1", shop.id)
    return [row["catalogue_version"] for row in rows]


async def test_whoever_pays_has_the_plan_and_its_limits_reach_the_engine(shop: Shop) -> None:
    before = await versions(shop)
    await shop.subscribe("pro")
    account = await shop.account()
    assert (account.has_plan, account.status) == ("pro", "active")
    assert await versions(shop) > before
    assert (await shop.account(shop.other)).has_plan == "free"
    assert [a for a in await shop.audit() if a.startswith("plan")] == ["plan.changed", "plan.asked", "plan.changed"]
    async with shop.pool.acquire() as conn:
        bills = await billing.list_bills(conn, shop.id)
        assert await billing.list_bills(conn, shop.other.account_id) == []
    assert [(b.status, b.total, b.currency) for b in bills] == [("paid", 2900, "eur")]


async def test_choosing_a_plan_gives_nothing_before_it_is_paid(shop: Shop, stand_in: StripeStandIn) -> None:
    assert await checkout.choose(shop.desk, shop.id, ADA, "business", email="ada@example.com")
    await checkout.refresh(shop.desk, shop.id)
    assert (await shop.account()).has_plan == "free"
    # The page was closed and opened again: the same customer.
    assert await checkout.choose(shop.desk, shop.id, ADA, "pro", email="ada@example.com")
    assert len(stand_in.customers) == 1


async def test_nobody_pays_twice_by_two_tabs(shop: Shop, stand_in: StripeStandIn) -> None:
    first = await checkout.choose(shop.desk, shop.id, ADA, "pro", email="ada@example.com")
    second = await checkout.choose(shop.desk, shop.id, ADA, "pro", email="ada@example.com")
    assert first is not None and second is not None
    assert [s["status"] for s in stand_in.sessions.values()] == ["expired", "open"]
    stand_in.pay(second.rpartition("/")[2])
    # The webhook is still on its way; a third tab hears of the payment all the same.
    with pytest.raises(PlanAlready):
        await checkout.choose(shop.desk, shop.id, ADA, "pro", email="ada@example.com")
    assert len(stand_in.subscriptions) == 1


async def test_a_plan_changes_up_and_down_in_place(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    assert await checkout.choose(shop.desk, shop.id, ADA, "business", email="ada@example.com") is None
    assert (await shop.account()).has_plan == "business"
    assert [i["price"]["id"] for i in stand_in.subscription_of(customer)["items"]["data"]] == ["price_business"]
    assert await checkout.choose(shop.desk, shop.id, ADA, "pro", email="ada@example.com") is None
    assert (await shop.account()).has_plan == "pro"
    prices = [i["price"]["id"] for i in stand_in.subscription_of(customer)["items"]["data"]]
    assert prices == ["price_pro", "price_pro_use"]
    asked = [f["proration_behavior"] for m, p, f in stand_in.requests if "proration_behavior" in f]
    assert asked == ["always_invoice", "create_prorations"]
    with pytest.raises(PlanAlready):
        await checkout.choose(shop.desk, shop.id, ADA, "pro", email="ada@example.com")


async def test_a_cancelled_plan_lasts_until_its_period_ends(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    await checkout.set_cancelling(shop.desk, shop.id, ADA, is_cancelling=True)
    account = await shop.account()
    assert account.has_plan == "pro" and account.cancels_at == account.period_end
    await checkout.set_cancelling(shop.desk, shop.id, ADA, is_cancelling=False)
    assert (await shop.account()).cancels_at is None
    await checkout.set_cancelling(shop.desk, shop.id, ADA, is_cancelling=True)
    stand_in.end_period(customer)
    assert await shop.heed("customer.subscription.deleted", customer)
    assert await shop.read_due() == 1
    assert (await shop.account()).has_plan == "free"
    with pytest.raises(NothingToChange):
        await checkout.set_cancelling(shop.desk, shop.id, ADA, is_cancelling=False)
    # And again from the start.
    await shop.subscribe("business")
    assert (await shop.account()).has_plan == "business"


async def test_a_failed_payment_goes_through_its_stages_each_told_once(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    shop.told()
    stand_in.fail_payment(customer)
    await shop.heed("invoice.payment_failed", customer)
    await shop.read_due()
    seen = []
    for days in (0, 3, 4, 5, 2):
        await shop.later(timedelta(days=days))
        account = await shop.settle()
        await shop.settle()
        seen.append((account.notice, account.has_plan, shop.told()))
    assert seen == [
        ("payment_failed", "pro", ["A payment failed"]),
        ("past_due", "pro", ["Your payment is past due"]),
        ("final_notice", "pro", ["Last reminder: your payment is past due"]),
        ("downgrade_pending", "pro", ["Your plan ends in two days"]),
        ("downgraded", "free", ["Your organization is on the Free plan now"]),
    ]
    # Reading the same state back does not begin the grace anew.
    await checkout.refresh(shop.desk, shop.id)
    assert (await shop.account()).has_plan == "free"
    stand_in.pay_open(customer)
    await shop.heed("invoice.paid", customer)
    await shop.read_due()
    account = await shop.account()
    assert (account.has_plan, account.notice, account.stage) == ("pro", "", "fine")
    assert timedelta(days=14) == GRACE


async def test_a_webhook_twice_is_one_and_what_it_says_is_not_believed(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    assert await shop.heed(
        "customer.subscription.updated", customer, "evt_same_1" + shop.id.hex, plan={"id": "price_business"}
    )
    assert not await shop.heed("customer.subscription.updated", customer, "evt_same_1" + shop.id.hex)
    assert await shop.read_due() == 1
    assert (await shop.account()).has_plan == "pro"
    assert not await shop.heed("customer.subscription.updated", "cus_of_nobody")
    assert not await shop.heed("customer.subscription.updated", None)
    assert not await shop.heed("a.kind.of.next.year", customer)
    assert await shop.read_due() == 0


async def test_webhooks_in_the_wrong_order_lead_to_what_is_true(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    stand_in.subscription_of(customer)["status"] = "canceled"
    await shop.heed("customer.subscription.deleted", customer)
    await shop.heed("customer.subscription.created", customer, status="active")
    await shop.read_due()
    await shop.heed("customer.subscription.updated", customer, status="active")
    await shop.read_due()
    assert (await shop.account()).has_plan == "free"


async def test_an_answer_that_is_late_does_not_replace_a_newer_one(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    asked, go = asyncio.Event(), asyncio.Event()

    async def hold(_method: str, path: str) -> None:
        if path == "/v1/invoices" and not asked.is_set():
            asked.set()
            await go.wait()

    stand_in.before_answer = hold
    late = asyncio.create_task(checkout.refresh(shop.desk, shop.id))
    async with asyncio.timeout(20):
        await asked.wait()
    stand_in.subscription_of(customer)["status"] = "canceled"
    await checkout.refresh(shop.desk, shop.id)
    assert (await shop.account()).has_plan == "free"
    go.set()
    await late
    assert (await shop.account()).has_plan == "free"


async def test_somebody_who_asks_while_it_is_read_back_has_it_read_again(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")

    async def ask(_method: str, path: str) -> None:
        if path == "/v1/invoices":
            stand_in.before_answer = None
            stand_in.subscription_of(customer)["status"] = "canceled"
            await shop.heed("customer.subscription.deleted", customer)

    stand_in.before_answer = ask
    await shop.heed("customer.subscription.updated", customer)
    assert await shop.read_due() == 2
    assert (await shop.account()).has_plan == "free"


async def test_with_stripe_away_nothing_changes_and_it_is_read_back_later(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    stand_in.subscription_of(customer)["status"] = "canceled"
    stand_in.fails = lambda _method, _path: True
    assert await shop.heed("customer.subscription.deleted", customer)
    assert await shop.read_due() == 0
    with pytest.raises(StripeAway):
        await checkout.choose(shop.desk, shop.id, ADA, "business", email="ada@example.com")
    with pytest.raises(StripeAway):
        await read_back.read_prices(shop.pool, shop.desk.stripe)
    assert (await shop.account()).has_plan == "pro"
    async with shop.pool.acquire() as conn:
        assert set(await billing.list_prices(conn)) == {"pro", "business"}
    stand_in.fails = lambda _method, _path: False
    assert await shop.read_due() == 0, "it is not due yet"
    await shop.pool.execute("update billing_accounts set look_at = clock() where account_id = $1", shop.id)
    assert await shop.read_due() == 1
    assert (await shop.account()).has_plan == "free"


async def test_a_lost_webhook_costs_a_day_at_most(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    stand_in.subscription_of(customer)["status"] = "canceled"
    assert await shop.read_due() == 0
    due = await shop.pool.fetchval("select look_at - clock() from billing_accounts where account_id = $1", shop.id)
    assert timedelta(hours=23) < due <= timedelta(hours=24)
    await shop.pool.execute(
        "update billing_accounts set look_at = look_at - interval '24 hours' where account_id = $1", shop.id
    )
    assert await shop.read_due() == 1
    assert (await shop.account()).has_plan == "free"


async def test_only_plans_that_are_sold_can_be_chosen(shop: Shop) -> None:
    for plan in ("free", "self_hosted", "price_business", "", "pro\n"):
        with pytest.raises(PlanUnknown):
            await checkout.choose(shop.desk, shop.id, ADA, plan, email="ada@example.com")


async def test_a_price_nobody_knows_gives_nothing_and_is_no_end_of_the_others(
    shop: Shop, stand_in: StripeStandIn
) -> None:
    one = await shop.subscribe("pro")
    two = await shop.subscribe("pro", shop.other)
    await shop.pool.execute("update billing_accounts set look_at = clock() where customer_id = any($1)", [one, two])
    stand_in.subscription_of(one)["items"]["data"][0]["price"]["id"] = "price_of_nobody"
    stand_in.subscription_of(two)["status"] = "canceled"
    assert await shop.read_due() == 2
    # Nobody knows what was bought: the plan it had is not kept for a price that does not exist.
    assert (await shop.account(shop.other)).has_plan == "free"
