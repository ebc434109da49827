"""What happens to an order, from placed to on its way, as one durable function.

    reserve-stock ─► check-fraud ┐
                     price-tax   ┴► charge-payment ─► (2 s) ─► pack-order ─► send-confirmation ─► result
                                    busy, busy, done

The function is started anew for every step; finished steps are not executed again but give the result they had. So it may be
killed at any line and goes on from there.
"""

from datetime import timedelta
from typing import Any

import stepwell

from . import bank, ledger

client = stepwell.Client("shop")

#: The event that places an order.
ORDER_PLACED = "shop/order.placed"

#: How long an order may still be changed before it is packed.
GRACE = timedelta(seconds=2)

_TAX_PERCENT = 20


def reserve_stock(order_id: str, items: list[str]) -> dict[str, Any]:
    """Put the items aside."""
    ledger.record(order_id, "reserve-stock")
    return {"reservation": f"res_{order_id}", "items": len(items)}


def check_fraud(order_id: str, cents: int) -> dict[str, Any]:
    """Judge the order."""
    ledger.record(order_id, "check-fraud")
    return {"risk": "high" if cents >= 1_000_000 else "low"}


def price_tax(order_id: str, cents: int) -> int:
    """Work out the tax, in cents."""
    ledger.record(order_id, "price-tax")
    return cents * _TAX_PERCENT // 100


def charge_payment(order_id: str, cents: int, ctx: stepwell.Context) -> str:
    """Take the money. When the bank is busy, say so, with the wait it asks for: Stepwell tries again then."""
    try:
        return bank.charge(order_id, cents, ctx.attempt)
    except bank.BankBusyError as busy:
        raise stepwell.RetryAfterError(str(busy), busy.retry_after_s) from busy


def pack_order(order_id: str) -> str:
    """Pack the parcel and give its tracking number."""
    ledger.record(order_id, "pack-order")
    return f"trk_{order_id}"


def send_confirmation(order_id: str, email: str) -> str:
    """Tell the customer."""
    ledger.record(order_id, "send-confirmation")
    return f"sent to {email}"


@client.function(id="fulfil-order", name="Fulfil an order", trigger=stepwell.Event(ORDER_PLACED))
async def fulfil_order(ctx: stepwell.Context, step: stepwell.Step) -> dict[str, Any]:
    """Fulfil one order; the event's data holds `order_id`, `items`, `cents` and `email`."""
    order = ctx.event.data
    order_id: str = order["order_id"]
    cents: int = order["cents"]

    reserved = await step.run("reserve-stock", reserve_stock, order_id, order["items"])

    # Neither needs the other's answer, so they are called side by side.
    fraud, tax = await step.parallel(
        lambda: step.run("check-fraud", check_fraud, order_id, cents),
        lambda: step.run("price-tax", price_tax, order_id, cents),
    )
    if fraud["risk"] == "high":
        raise stepwell.NonRetriableError(f"Order {order_id} looks like fraud.")

    charge_id = await step.run("charge-payment", lambda: charge_payment(order_id, cents + tax, ctx))
    await step.sleep("wait-before-packing", GRACE)
    tracking = await step.run("pack-order", pack_order, order_id)
    confirmation = await step.run("send-confirmation", send_confirmation, order_id, order["email"])

    return {
        "order_id": order_id,
        "reservation": reserved["reservation"],
        "cents": cents + tax,
        "charge_id": charge_id,
        "tracking": tracking,
        "confirmation": confirmation,
    }
