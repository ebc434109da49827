"""What the stand-in pretends, asked of Stripe's own test mode. Needs STEPWELL_TEST_STRIPE_KEY, a key that begins with sk_test_."""

import os
import time
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest

from app.adapters.stripe import Stripe
from app.domain.subscription import Sold, StripeRefuses

KEY = os.environ.get("STEPWELL_TEST_STRIPE_KEY", "")

pytestmark = pytest.mark.skipif(
    not KEY.startswith("sk_test_"), reason="STEPWELL_TEST_STRIPE_KEY holds no key of Stripe's test mode"
)


async def test_the_shapes_are_those_of_stripe() -> None:
    """Makes a product with a price and a meter of its own, a customer, and reports one execution."""
    import stripe  # The set-up is the operator's work, not the adapter's.

    client = stripe.StripeClient(KEY)
    word = uuid4().hex[:8]
    meter = await client.v1.billing.meters.create_async(
        {
            "display_name": f"executions {word}",
            "event_name": f"executions_{word}",
            "default_aggregation": {"formula": "sum"},
        }
    )
    product = await client.v1.products.create_async({"name": f"Pro {word}"})
    monthly = await client.v1.prices.create_async(
        {"product": product.id, "currency": "eur", "unit_amount": 2900, "recurring": {"interval": "month"}}
    )
    by_use = await client.v1.prices.create_async(
        {
            "product": product.id,
            "currency": "eur",
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
            "tiers": [{"up_to": 1000, "unit_amount": 0}, {"up_to": "inf", "unit_amount_decimal": Decimal("0.005")}],
        }
    )
    ours = Stripe(KEY, "whsec_unused_here", {"pro": Sold(monthly.id, by_use.id)}, meter=meter.event_name)
    try:
        (price,) = await ours.read_prices()
        assert (price.amount, str(price.each), price.included) == (2900, "0.005", 1000)
        customer = await ours.make_customer(uuid4(), "Northwind", "ada@example.com")
        url = await ours.open_checkout(customer, "pro", done_url="https://example.com", back_url="https://example.com")
        assert url.startswith("https://checkout.stripe.com/")
        assert (await ours.state_of(customer)).subscription is None
        identifier = uuid4()
        for _ in range(2):
            await ours.report(identifier, customer, 7, datetime.fromtimestamp(int(time.time()) - 60, UTC))
        with pytest.raises(StripeRefuses):
            await ours.report(uuid4(), "cus_of_nobody_" + word, 7, datetime.now(UTC))
    finally:
        await ours.close()
        await client.v1.products.update_async(product.id, {"active": False})
        await client.v1.billing.meters.deactivate_async(meter.id)
