"""A database, a pretended Stripe behind the real client, and an outbox that can be read."""

from collections.abc import AsyncIterator

import pytest

from app.store.db import Pool, open_engine_pool
from tests.integration.billing.world import Shop, new_shop
from tests.stripe_stand_in import StripeStandIn, running_stripe


@pytest.fixture
async def engine_pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool that sees all tenants."""
    pool = await open_engine_pool(database, size=4)
    yield pool
    await pool.close()


@pytest.fixture
async def stand_in() -> AsyncIterator[StripeStandIn]:
    """Give a Stripe."""
    async with running_stripe() as running:
        yield running


@pytest.fixture
async def shop(engine_pool: Pool, stand_in: StripeStandIn) -> AsyncIterator[Shop]:
    """Give an organization whose owner may pay, and a second one beside it."""
    await engine_pool.execute("delete from usage_days; delete from meter_slices; delete from billing_accounts")
    made = await new_shop(engine_pool, stand_in)
    yield made
    await made.desk.stripe.close()
