"""What follows from what is used: who is told, who is stopped, and who starts again."""

from datetime import UTC, datetime

import pytest

from app.billing import checkout, entitlements, standing
from app.billing.checkout import CapInvalid
from app.billing.entitlements import OrganizationUnknown, PlanInvalid
from app.store.audit import Actor
from tests.integration.billing.world import ADA, Shop
from tests.stripe_stand_in import StripeStandIn

OPERATOR = Actor("operator")


async def set_cap(shop: Shop, text: str) -> int | None:
    async with shop.pool.acquire() as conn, conn.transaction():
        return await checkout.set_cap(conn, shop.desk.house, shop.id, ADA, text, "eur")


async def give(shop: Shop, plan: str | None) -> str:
    slug = await shop.pool.fetchval("select slug from accounts where id = $1", shop.id)
    async with shop.pool.acquire() as conn, conn.transaction():
        return await entitlements.give_plan(conn, shop.desk.house, slug, plan, OPERATOR)


async def test_a_free_organization_is_warned_and_stopped_and_told_once_each(shop: Shop) -> None:
    await shop.use(39_999)
    assert (await shop.settle()).notice == ""
    assert shop.told() == []
    await shop.use(1)
    for _ in range(2):
        account = await shop.settle()
        assert (account.stops_for, account.notice) == (None, "allowance_80")
    assert shop.told() == ["80 % of this month's allowance is used"]
    await shop.use(10_000)
    for _ in range(2):
        account = await shop.settle()
        assert (account.stops_for, account.notice) == ("allowance", "allowance")
    assert shop.told() == ["This month's allowance is used up: new runs have stopped"]
    assert (await shop.settle(shop.other)).stops_for is None
    assert [a for a in await shop.audit() if a.startswith("runs")] == ["runs.stopped"]


async def test_events_alone_can_use_the_allowance_up(shop: Shop) -> None:
    await shop.use(0, events=400_000)
    assert (await shop.settle()).notice == "allowance_80"
    await shop.use(0, events=100_000)
    assert (await shop.settle()).stops_for == "allowance"
    assert shop.told() == [
        "80 % of this month's allowance is used",
        "This month's allowance is used up: new runs have stopped",
    ]


async def test_a_larger_plan_starts_runs_again_at_once(shop: Shop) -> None:
    await shop.use(50_000)
    assert (await shop.settle()).stops_for == "allowance"
    await shop.subscribe("pro")
    account = await shop.account()
    assert (account.has_plan, account.stops_for, account.notice) == ("pro", None, "")


async def test_a_new_month_starts_runs_again(shop: Shop) -> None:
    await shop.use(50_000)
    assert (await shop.settle()).stops_for == "allowance"
    await shop.pool.execute("update usage_days set day = day - 31")
    assert await standing.settle_all(shop.pool, shop.desk.house) >= 1
    account = await shop.account()
    assert (account.stops_for, account.notice) == (None, "")


async def test_what_was_paid_for_does_not_use_up_the_free_allowance_after_it(
    shop: Shop, stand_in: StripeStandIn
) -> None:
    customer = await shop.subscribe("pro")
    await shop.use(800_000)
    assert (await shop.settle()).stops_for is None
    gone = stand_in.subscription_of(customer)
    gone["status"] = "canceled"
    gone["items"]["data"][0]["current_period_end"] = int(datetime.now(UTC).timestamp())
    await checkout.refresh(shop.desk, shop.id)
    account = await shop.account()
    assert (account.has_plan, account.stops_for) == ("free", None)


async def test_a_spend_cap_warns_stops_and_starts_again_when_it_is_raised(shop: Shop) -> None:
    await shop.subscribe("pro")
    await shop.use(1_000_000)
    shop.told()
    assert await set_cap(shop, "10") == 1000
    assert (await shop.settle()).notice == ""
    assert shop.told() == ["This month's included executions are used"]
    await shop.use(160_000)
    account = await shop.settle()
    assert (account.notice, account.stops_for) == ("spend_cap_80", None)
    await shop.use(40_000)
    account = await shop.settle()
    assert (account.notice, account.stops_for) == ("spend_cap", "spend_cap")
    assert shop.told() == ["80 % of your spend cap are reached", "Your spend cap is reached: new runs have stopped"]
    await set_cap(shop, "100")
    assert (await shop.account()).stops_for is None
    assert await set_cap(shop, "") is None
    assert shop.told() == []
    noted = [a for a in await shop.audit() if a.startswith(("spend", "runs"))]
    assert sorted(noted) == ["runs.started", "runs.stopped", "spend_cap.set", "spend_cap.set", "spend_cap.set"]


@pytest.mark.parametrize("text", ["0", "-5", "ten", "1e9", "9999999999", "1.234"])
async def test_a_cap_that_is_no_amount_is_refused(shop: Shop, text: str) -> None:
    with pytest.raises(CapInvalid):
        await set_cap(shop, text)
    assert (await shop.account()).spend_cap is None


async def test_a_plan_given_by_hand_goes_before_what_is_paid_for_and_can_be_taken_back(
    shop: Shop, stand_in: StripeStandIn
) -> None:
    assert await give(shop, "business") == "business"
    customer = await shop.subscribe("pro")
    assert (await shop.account()).has_plan == "business"
    stand_in.subscription_of(customer)["status"] = "canceled"
    await checkout.refresh(shop.desk, shop.id)
    assert (await shop.account()).has_plan == "business"
    assert await give(shop, None) == "free"
    with pytest.raises(PlanInvalid):
        await give(shop, "platinum")
    async with shop.pool.acquire() as conn:
        with pytest.raises(OrganizationUnknown):
            await entitlements.give_plan(conn, shop.desk.house, "nobody-has-this", "pro", OPERATOR)


async def test_an_organization_made_by_somebody_else_gets_the_free_plan(shop: Shop) -> None:
    await shop.pool.execute("update accounts set plan = 'self_hosted' where id = $1", shop.id)
    await standing.settle_all(shop.pool, shop.desk.house)
    assert (await shop.account()).has_plan == "free"


async def test_on_ones_own_machine_nothing_is_decided(shop: Shop) -> None:
    await shop.pool.execute("update accounts set plan = 'self_hosted' where id = $1", shop.id)
    await shop.use(10**9)
    own = standing.House("http://127.0.0.1:8288", shop.desk.house.put_letter, is_hosted=False)
    assert await standing.settle_all(shop.pool, own) == 0
    account = await shop.account()
    assert (account.has_plan, account.stops_for) == ("self_hosted", None)
