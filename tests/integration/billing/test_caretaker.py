"""The caretaker in every worker: does all there is to do, and goes on with the rest when a part fails."""

import asyncio

import pytest

from tests.integration.billing.world import Shop
from tests.integration.web.site import settings_for
from tests.stripe_stand_in import SETTINGS, SOLD, StripeStandIn
from workers.billing import Billing
from workers.jobs import BILLING, look_after_billing
from workers.main import _stripe


async def test_a_round_reads_back_settles_and_reports(shop: Shop, stand_in: StripeStandIn) -> None:
    customer = await shop.subscribe("pro")
    worker = Billing(shop.pool, shop.desk.house, shop.desk.stripe)
    await worker.round()
    await shop.use(12)
    await shop.use(50_000, tenant=shop.other)
    stand_in.subscription_of(customer)["cancel_at_period_end"] = True
    await shop.heed("customer.subscription.updated", customer)
    await shop.pool.execute("delete from billing_prices")
    await Billing(shop.pool, shop.desk.house, shop.desk.stripe).round()
    assert (await shop.account()).cancels_at is not None
    assert (await shop.account(shop.other)).stops_for == "allowance"
    assert stand_in.reported(customer) == 12
    assert await shop.pool.fetchval("select count(*) from billing_prices") == 2


async def test_with_stripe_away_the_rest_is_done(shop: Shop, stand_in: StripeStandIn) -> None:
    await shop.subscribe("pro")
    stand_in.fails = lambda _method, _path: True
    await shop.use(50_000, tenant=shop.other)
    await shop.pool.execute("update usage_marks set until = until - interval '1 hour' where what = 'events'")
    before = await shop.pool.fetchval("select until from usage_marks")
    await Billing(shop.pool, shop.desk.house, shop.desk.stripe).round()
    assert (await shop.account(shop.other)).stops_for == "allowance"
    assert await shop.pool.fetchval("select until from usage_marks") > before


async def test_where_nothing_is_sold_usage_is_counted_all_the_same(shop: Shop, stand_in: StripeStandIn) -> None:
    before = len(stand_in.requests)
    await shop.pool.execute("update usage_marks set until = until - interval '1 hour' where what = 'events'")
    until = await shop.pool.fetchval("select until from usage_marks")
    await Billing(shop.pool, shop.desk.house, None).round()
    assert await shop.pool.fetchval("select until from usage_marks") > until
    assert len(stand_in.requests) == before


async def test_a_broken_part_does_not_stop_the_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_given: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("workers.billing.count_events", broken)
    await shop.use(50_000, tenant=shop.other)
    await Billing(shop.pool, shop.desk.house, None).round()
    assert (await shop.account(shop.other)).stops_for == "allowance"
    assert "a part of billing failed" in caplog.text


async def test_a_worker_of_a_seller_has_a_client_and_hears_of_nudges(shop: Shop, database: str) -> None:
    client = _stripe(settings_for(database, **SETTINGS))
    assert client is not None and client.sold == SOLD
    await client.close()
    assert _stripe(settings_for(database, STEPWELL_HOSTED="1")) is None
    worker = Billing(shop.pool, shop.desk.house, None)
    rounds = asyncio.Queue[None]()

    async def noted() -> None:
        rounds.put_nowait(None)

    worker.round = noted  # type: ignore[method-assign]
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        await rounds.get()
        await look_after_billing({BILLING: worker})
        await rounds.get()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
