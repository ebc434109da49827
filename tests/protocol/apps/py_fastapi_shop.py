"""The sample shop's order function, written with the PyPI package `inngest` on FastAPI.

Started by the protocol tests as a process: `python -m tests.protocol.apps.py_fastapi_shop`, from the root of the
repository. Reads `PORT`, `SHOP_LOG` and the SDK's own `INNGEST_*` variables. It shares the sample shop's bank and ledger,
so that the same questions can be asked of both, and nothing of our SDK.

A RetryAfterError raised inside a step reaches the server as a function error of that call; the retry is the same.
"""

import asyncio
import datetime as dt
import logging
import os
from typing import Any

import fastapi
import inngest
import inngest.fast_api
import uvicorn

from examples.shop import bank, ledger

client = inngest.Inngest(app_id="shop-py", logger=logging.getLogger("uvicorn"))


@client.create_function(
    fn_id="fulfil-order",
    name="Fulfil an order",
    trigger=inngest.TriggerEvent(event="shop/order.placed"),
)
async def fulfil_order(ctx: inngest.Context) -> dict[str, Any]:
    """Fulfil one order."""
    order: Any = ctx.event.data
    order_id: str = order["order_id"]
    cents: int = order["cents"]

    async def reserve_stock() -> dict[str, Any]:
        ledger.record(order_id, "reserve-stock")
        return {"reservation": f"res_{order_id}", "items": len(order["items"])}

    async def check_fraud() -> dict[str, Any]:
        ledger.record(order_id, "check-fraud")
        return {"risk": "high" if cents >= 1_000_000 else "low"}

    async def price_tax() -> int:
        ledger.record(order_id, "price-tax")
        return cents * 20 // 100

    async def charge_payment(total: int) -> str:
        try:
            return bank.charge(order_id, total, ctx.attempt)
        except bank.BankBusyError as busy:
            after = dt.timedelta(seconds=busy.retry_after_s)
            raise inngest.RetryAfterError(str(busy), after, quiet=True) from busy

    async def pack_order() -> str:
        ledger.record(order_id, "pack-order")
        return f"trk_{order_id}"

    async def send_confirmation() -> str:
        ledger.record(order_id, "send-confirmation")
        return f"sent to {order['email']}"

    reserved = await ctx.step.run("reserve-stock", reserve_stock)
    pair: Any = await ctx.group.parallel(
        (
            lambda: ctx.step.run("check-fraud", check_fraud),
            lambda: ctx.step.run("price-tax", price_tax),
        )
    )
    fraud, tax = pair
    if fraud["risk"] == "high":
        raise inngest.NonRetriableError(f"Order {order_id} looks like fraud.")
    charge_id = await ctx.step.run("charge-payment", charge_payment, cents + tax)
    await ctx.step.sleep("wait-before-packing", dt.timedelta(seconds=2))
    tracking = await ctx.step.run("pack-order", pack_order)
    confirmation = await ctx.step.run("send-confirmation", send_confirmation)
    return {
        "order_id": order_id,
        "reservation": reserved["reservation"],
        "cents": cents + tax,
        "charge_id": charge_id,
        "tracking": tracking,
        "confirmation": confirmation,
    }


app = fastapi.FastAPI()
inngest.fast_api.serve(app, client, [fulfil_order])


@app.post("/orders", status_code=202)
async def place(order: dict[str, Any]) -> dict[str, Any]:
    """Send the order's event; the body is its data, complete."""
    event = inngest.Event(name="shop/order.placed", id=order["order_id"], data=order)
    ids = await client.send(event)
    return {"order_id": order["order_id"], "event_id": ids[0]}


if __name__ == "__main__":
    config = uvicorn.Config(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
    asyncio.run(uvicorn.Server(config).serve())
