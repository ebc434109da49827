"""A small Stripe that remembers: customers, prices, checkout and portal sessions, subscriptions, invoices, meter events.

The real client of `stripe` speaks to it over HTTP on loopback. Every answer is built as an object of that library first, so a
shape it would not read fails here. People act on it as they would in Stripe's own pages: `pay`, `fail_payment`, `move_on`.
"""

import asyncio
import hashlib
import hmac
import itertools
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import stripe
from aiohttp import web

from app.domain.subscription import Sold

KEY, SECRET = "sk_test_standInForTests", "whsec_standInForTests"
SOLD = {"pro": Sold("price_pro", "price_pro_use"), "business": Sold("price_business")}
SETTINGS = {
    "STEPWELL_HOSTED": "1",
    "STEPWELL_STRIPE_KEY": KEY,
    "STEPWELL_STRIPE_WEBHOOK_SECRET": SECRET,
    "STEPWELL_STRIPE_PRICES": "pro=price_pro+price_pro_use,business=price_business",
}
DAY = 86_400


def event_body(event_id: str, kind: str, customer: str | None, **fields: Any) -> bytes:
    """A webhook's body. `fields` are what it says of the object, which nobody should believe."""
    thing = {"id": "obj_1", "object": "subscription", "customer": customer} | fields
    value = {
        "id": event_id, "object": "event", "type": kind, "api_version": stripe.api_version, "created": int(time.time()),
        "livemode": False, "pending_webhooks": 1, "request": None, "data": {"object": thing},
    }  # fmt: skip
    return json.dumps(value).encode()


def signed(body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """The headers Stripe sends with a body."""
    stamp = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={stamp},v1={digest}", "content-type": "application/json"}


@dataclass
class StripeStandIn:
    """What it holds. `fails` decides per request (method, path) whether it answers 500; `delay` is awaited before answers."""

    url: str = ""
    now: int = field(default_factory=lambda: int(time.time()))
    customers: dict[str, dict[str, Any]] = field(default_factory=dict)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    invoices: dict[str, dict[str, Any]] = field(default_factory=dict)
    meter_events: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    fails: Callable[[str, str], bool] = lambda _method, _path: False
    #: Answers to these are lost on the way, after the deed.
    loses: Callable[[str, str], bool] = lambda _method, _path: False
    before_answer: Callable[[str, str], Any] | None = None
    _word: str = field(default_factory=lambda: secrets.token_hex(4))
    _ids: Any = field(default_factory=lambda: itertools.count(1))
    _remembered: dict[str, Any] = field(default_factory=dict)

    # ---- what people and time do

    def pay(self, session_id: str) -> dict[str, Any]:
        """Somebody fills in the page of a checkout session and pays."""
        session = self.sessions[session_id]
        assert session["status"] == "open", "Stripe lets nobody pay on a page that is over"
        subscription = self._subscribe(session["customer"], [line["price"] for line in session["lines"]])
        session["status"] = "complete"
        self._bill(subscription, "paid")
        return subscription

    def fail_payment(self, customer: str) -> None:
        """The next month's payment is refused by the bank."""
        subscription = self.subscription_of(customer)
        subscription["status"] = "past_due"
        self._bill(subscription, "open")

    def pay_open(self, customer: str) -> None:
        """Somebody pays what is open."""
        for invoice in self.invoices.values():
            if invoice["customer"] == customer and invoice["status"] == "open":
                invoice["status"] = "paid"
        self.subscription_of(customer)["status"] = "active"

    def end_period(self, customer: str) -> None:
        """A month goes by: what was to be cancelled is, the rest is renewed."""
        subscription = self.subscription_of(customer)
        if subscription["cancel_at_period_end"]:
            subscription["status"] = "canceled"
            subscription["canceled_at"] = self.now
            return
        for item in subscription["items"]["data"]:
            item["current_period_start"], item["current_period_end"] = (
                item["current_period_end"],
                item["current_period_end"] + 30 * DAY,
            )
        self._bill(subscription, "paid")

    def subscription_of(self, customer: str) -> dict[str, Any]:
        """The newest subscription of a customer."""
        return [s for s in self.subscriptions.values() if s["customer"] == customer][-1]

    def reported(self, customer: str) -> int:
        """What the meter says of a customer."""
        return sum(
            int(e["payload"]["value"])
            for e in self.meter_events.values()
            if e["payload"]["stripe_customer_id"] == customer
        )

    # ---- shapes

    def _id(self, word: str) -> str:
        return f"{word}_{self._word}{next(self._ids):04d}"

    def _price(self, price_id: str) -> dict[str, Any]:
        known = {"price_pro": 2900, "price_business": 19_900}
        value: dict[str, Any] = {
            "id": price_id, "object": "price", "active": True, "currency": "eur", "type": "recurring", "product": "prod_1",
            "unit_amount": known.get(price_id), "unit_amount_decimal": str(known[price_id]) if price_id in known else None,
            "billing_scheme": "per_unit", "recurring": {"interval": "month", "usage_type": "licensed", "interval_count": 1},
        }  # fmt: skip
        if price_id == "price_pro_use":
            value |= {"billing_scheme": "tiered", "tiers_mode": "graduated"}
            value["recurring"] = {"interval": "month", "usage_type": "metered", "interval_count": 1, "meter": "mtr_1"}
            value["tiers"] = [
                {"up_to": 1_000_000, "unit_amount": 0, "unit_amount_decimal": "0", "flat_amount": None},
                {"up_to": None, "unit_amount": None, "unit_amount_decimal": "0.005", "flat_amount": None},
            ]
        return value

    def _item(self, price_id: str, start: int) -> dict[str, Any]:
        return {
            "id": self._id("si"), "object": "subscription_item", "price": self._price(price_id), "created": start,
            "current_period_start": start, "current_period_end": start + 30 * DAY,
        }  # fmt: skip

    def _subscribe(self, customer: str, prices: list[str]) -> dict[str, Any]:
        made = {
            "id": self._id("sub"), "object": "subscription", "customer": customer, "status": "active", "created": self.now,
            "cancel_at": None, "cancel_at_period_end": False, "canceled_at": None, "currency": "eur",
            "items": {"object": "list", "data": [self._item(p, self.now) for p in prices], "has_more": False, "url": "/x"},
        }  # fmt: skip
        self.subscriptions[str(made["id"])] = made
        return made

    def _bill(self, subscription: dict[str, Any], status: str) -> None:
        number = self._id("in")
        total = sum(i["price"]["unit_amount"] or 0 for i in subscription["items"]["data"])
        self.invoices[number] = {
            "id": number, "object": "invoice", "customer": subscription["customer"], "status": status, "total": total,
            "currency": "eur", "created": self.now + len(self.invoices), "number": number.upper(),
            "hosted_invoice_url": f"https://invoice.stripe.com/i/{number}",
            "invoice_pdf": f"https://pay.stripe.com/invoice/{number}/pdf",
        }  # fmt: skip

    # ---- HTTP

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer as Stripe does: forms in, JSON out, errors with a type."""
        fields = _tree(dict((await request.post()).items()) | dict(request.query.items()))
        method, path = request.method, request.path
        self.requests.append((method, path, fields))
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, "Invalid API Key provided")
        if self.fails(method, path):
            return _error(500, "Stripe is not well")
        again = request.headers.get("idempotency-key")
        key = f"{method} {path} {again}" if again and method == "POST" else None
        if key is not None and key in self._remembered:
            value = self._remembered[key]
        else:
            try:
                value = self._answer(method, path.removeprefix("/v1/").split("/"), fields)
            except KeyError as missing:
                return _error(404, f"No such object: {missing}")
            except ValueError as refused:
                return _error(400, str(refused))
            if key is not None:
                self._remembered[key] = value
        if self.before_answer is not None:
            await self.before_answer(method, path)
        if self.loses(method, path):
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(_shaped(value))

    def _answer(self, method: str, parts: list[str], fields: dict[str, Any]) -> dict[str, Any]:
        match (method, *parts):
            case ("POST", "customers"):
                made = {"id": self._id("cus"), "object": "customer", "created": self.now, **fields}
                self.customers[made["id"]] = made
                return made
            case ("GET", "prices", price_id):
                if price_id not in {p for sold in SOLD.values() for p in sold.ids}:
                    raise KeyError(price_id)
                return self._price(price_id)
            case ("POST", "checkout", "sessions"):
                session_id = self._id("cs")
                self.sessions[session_id] = {
                    "id": session_id, "object": "checkout.session", "customer": self.customers[fields["customer"]]["id"],
                    "mode": fields["mode"], "status": "open", "url": f"https://checkout.stripe.com/c/pay/{session_id}",
                    "lines": [_known(line) for line in fields["line_items"]], "success_url": fields["success_url"],
                }  # fmt: skip
                return self.sessions[session_id]
            case ("GET", "checkout", "sessions"):
                found = [
                    s
                    for s in self.sessions.values()
                    if s["customer"] == fields["customer"] and s["status"] == fields["status"]
                ]
                return _list(found, "/v1/checkout/sessions")
            case ("POST", "checkout", "sessions", session_id, "expire"):
                self.sessions[session_id]["status"] = "expired"
                return self.sessions[session_id]
            case ("POST", "billing_portal", "sessions"):
                return {
                    "id": self._id("bps"), "object": "billing_portal.session", "customer": self.customers[fields["customer"]]["id"],
                    "return_url": fields["return_url"], "url": "https://billing.stripe.com/p/session/test",
                }  # fmt: skip
            case ("GET", "subscriptions"):
                found = [s for s in reversed(self.subscriptions.values()) if s["customer"] == fields["customer"]]
                return _list(found, "/v1/subscriptions")
            case ("GET", "subscriptions", subscription_id):
                return self.subscriptions[subscription_id]
            case ("POST", "subscriptions", subscription_id):
                return self._change(self.subscriptions[subscription_id], fields)
            case ("GET", "invoices"):
                bills = [i for i in reversed(self.invoices.values()) if i["customer"] == fields["customer"]]
                return _list(bills, "/v1/invoices")
            case ("POST", "billing", "meter_events"):
                identifier = fields["identifier"]
                if identifier in self.meter_events:
                    raise ValueError(f"An event already exists with identifier {identifier}.")
                if fields["payload"]["stripe_customer_id"] not in self.customers:
                    raise ValueError("No such customer")
                self.meter_events[identifier] = {
                    "object": "billing.meter_event",
                    "created": self.now,
                    "livemode": False,
                    **fields,
                }
                return self.meter_events[identifier]
        raise KeyError("/".join(parts))

    def _change(self, subscription: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        if subscription["status"] == "canceled":
            raise ValueError("A canceled subscription can only update its cancellation_details and metadata.")
        items = subscription["items"]["data"]
        for wanted in fields.get("items", ()):
            mine = next((i for i in items if i["id"] == wanted.get("id")), None)
            if wanted.get("deleted") == "true":
                items.remove(mine)
            elif mine is not None:
                mine["price"] = self._price(wanted["price"])
            else:
                items.append(self._item(wanted["price"], items[0]["current_period_start"]))
        if "cancel_at_period_end" in fields:
            subscription["cancel_at_period_end"] = fields["cancel_at_period_end"] == "true"
        if fields.get("proration_behavior") == "always_invoice":
            self._bill(subscription, "paid")
        return subscription


@asynccontextmanager
async def running_stripe() -> AsyncIterator[StripeStandIn]:
    """Run it on loopback."""
    stand_in = StripeStandIn()
    app = web.Application()
    app.router.add_route("*", "/v1/{rest:.*}", stand_in.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stand_in
    finally:
        await asyncio.wait_for(runner.cleanup(), 10)


@contextmanager
def stripe_aside() -> Iterator[StripeStandIn]:
    """Run it in a thread of its own, for tests whose client holds the loop while it waits for an answer."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    found: Future[StripeStandIn] = Future()

    async def serve() -> None:
        async with running_stripe() as made:
            found.set_result(made)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        yield found.result(timeout=20)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=20)
        loop.close()


def _known(line: dict[str, Any]) -> dict[str, Any]:
    if line["price"] not in {p for sold in SOLD.values() for p in sold.ids}:
        raise ValueError(f"No such price: '{line['price']}'")
    return line


def _list(data: list[Any], url: str) -> dict[str, Any]:
    return {"object": "list", "data": data, "has_more": False, "url": url}


def _shaped(value: dict[str, Any]) -> Any:
    """The value after a way through the library's own object: what it cannot hold does not come out."""
    made = stripe.StripeObject.construct_from(value, None)
    return json.loads(str(made))


def _error(status: int, message: str) -> web.Response:
    kind = "api_error" if status >= 500 else "invalid_request_error"
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


def _tree(flat: dict[str, Any]) -> dict[str, Any]:
    """`items[0][price]=x` as nested objects and lists."""
    root: dict[str, Any] = {}
    for name, value in flat.items():
        parts = name.replace("]", "").split("[")
        here = root
        for part in parts[:-1]:
            here = here.setdefault(part, {})
        here[parts[-1]] = value
    return {name: _listed(value) for name, value in root.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdecimal() for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(inner) for key, inner in value.items()}
