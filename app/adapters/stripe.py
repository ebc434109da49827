"""Stripe, spoken to with its own client; the only module that imports it. Plain values go in and come out.

`stripe` is large, so this module is imported by those who have a key (app/main.py, workers/billing.py), not by everybody.
Every call is bounded in time and made without a database connection in hand.
"""

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import aiohttp
import stripe
from stripe import StripeClient

from app.domain.subscription import (
    CustomerState,
    Event,
    EventInvalid,
    Invoice,
    PriceRead,
    SignatureInvalid,
    Sold,
    StripeAway,
    StripeRefuses,
    Subscribed,
)

#: Seconds one call may take.
_CALL_S: Final = 10.0
#: Seconds an event's signature is good for, before and after its own time.
SIGNATURE_S: Final = 300
_MOST_INVOICES: Final = 24
#: Where browsers are sent, for `form-action`: the pages to pay on, and to manage cards and invoices.
CHECKOUT_ORIGIN: Final = "https://checkout.stripe.com"
PORTAL_ORIGIN: Final = "https://billing.stripe.com"


class Stripe:
    """A client with the prices of this installation. `url` replaces the address of Stripe's API."""

    def __init__(
        self, key: str, webhook_secret: str, sold: Mapping[str, Sold], *, meter: str, url: str | None = None
    ) -> None:
        """Nothing is opened before the first call."""
        http: Any = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=_CALL_S))
        self._http = http
        self._client = StripeClient(
            key,
            max_network_retries=1,
            http_client=http,
            base_addresses={"api": url} if url else None,
        )
        self._webhook_secret = webhook_secret
        self.sold = dict(sold)
        self.meter = meter
        self._plans = {one.price: plan for plan, one in self.sold.items()}

    @classmethod
    def of(
        cls, key: str, webhook_secret: str, prices: Iterable[tuple[str, str, str | None]], meter: str, url: str | None
    ) -> "Stripe":
        """The client of an installation's settings; `prices` are (plan, monthly, by use or None)."""
        sold = {plan: Sold(price, metered) for plan, price, metered in prices}
        return cls(key, webhook_secret, sold, meter=meter, url=url)

    async def close(self) -> None:
        """Hang up."""
        await self._http.close_async()

    async def make_customer(self, account_id: UUID, name: str, email: str) -> str:
        """A customer for an account; asked twice for the same account, the same one."""
        async with _told():
            made = await self._client.v1.customers.create_async(
                {"name": name, "email": email, "metadata": {"account_id": str(account_id)}},
                {"idempotency_key": f"customer-{account_id}"},
            )
        return made.id

    async def open_checkout(self, customer_id: str, plan: str, *, done_url: str, back_url: str) -> str:
        """The address of a page where the customer subscribes to a plan."""
        sold = self.sold[plan]
        items: list[Any] = [{"price": sold.price, "quantity": 1}]
        if sold.metered is not None:
            items.append({"price": sold.metered})
        async with _told():
            # A page left open in another tab must not be paid on as well.
            opened = await self._client.v1.checkout.sessions.list_async({"customer": customer_id, "status": "open"})
            for one in opened.data:
                await self._client.v1.checkout.sessions.expire_async(one.id)
            session = await self._client.v1.checkout.sessions.create_async(
                {
                    "mode": "subscription",
                    "customer": customer_id,
                    "line_items": items,
                    "success_url": done_url,
                    "cancel_url": back_url,
                    "billing_address_collection": "required",
                    "customer_update": {"address": "auto", "name": "auto"},
                    "tax_id_collection": {"enabled": True},
                }
            )
        if session.url is None:
            raise StripeRefuses("a checkout session without an address")
        return session.url

    async def open_portal(self, customer_id: str, *, back_url: str) -> str:
        """The address of a page where the customer changes cards and addresses, and finds bills."""
        async with _told():
            session = await self._client.v1.billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": back_url}
            )
        return session.url

    async def change_plan(self, subscription_id: str, plan: str, *, is_upgrade: bool) -> None:
        """Move a subscription to another plan's prices at once. The difference is charged now, or credited next time."""
        sold = self.sold[plan]
        async with _told():
            present = _plain(await self._client.v1.subscriptions.retrieve_async(subscription_id))
            items: list[Any] = [{"id": item["id"], "deleted": True} for item in present["items"]["data"]]
            items[0] = {"id": items[0]["id"], "price": sold.price, "quantity": 1}
            if sold.metered is not None:
                items.append({"price": sold.metered})
            await self._client.v1.subscriptions.update_async(
                subscription_id,
                {
                    "items": items,
                    "proration_behavior": "always_invoice" if is_upgrade else "create_prorations",
                    "cancel_at_period_end": False,
                },
            )

    async def set_cancelling(self, subscription_id: str, *, is_cancelling: bool) -> None:
        """Let a subscription end with its period, or go on after all."""
        async with _told():
            await self._client.v1.subscriptions.update_async(subscription_id, {"cancel_at_period_end": is_cancelling})

    async def state_of(self, customer_id: str) -> CustomerState:
        """What Stripe knows of a customer now."""
        async with _told():
            subscriptions = await self._client.v1.subscriptions.list_async(
                {"customer": customer_id, "status": "all", "limit": 20}
            )
            invoices = await self._client.v1.invoices.list_async({"customer": customer_id, "limit": _MOST_INVOICES})
        found = [_plain(one) for one in subscriptions.data]
        living = [one for one in found if one["status"] not in ("canceled", "incomplete_expired", "incomplete")]
        chosen = (living or [one for one in found if one["status"] == "incomplete"] or found)[:1]
        bills = [_plain(one) for one in invoices.data]
        return CustomerState(
            self._subscribed(chosen[0]) if chosen else None,
            tuple(_invoice(one) for one in bills if one["status"] not in (None, "draft")),
        )

    async def read_prices(self) -> list[PriceRead]:
        """What the plans cost."""
        found = []
        async with _told():
            for plan, sold in self.sold.items():
                price = await self._client.v1.prices.retrieve_async(sold.price)
                each, included = Decimal(0), None
                if sold.metered is not None:
                    metered = await self._client.v1.prices.retrieve_async(sold.metered, {"expand": ["tiers"]})
                    each, included = _by_use(_plain(metered))
                found.append(PriceRead(plan, price.currency, price.unit_amount or 0, each, included))
        return found

    async def report(self, identifier: UUID, customer_id: str, quantity: int, at: datetime) -> None:
        """Report executions; the same identifier again counts nothing, which is as good as done."""
        try:
            async with _told():
                await self._client.v1.billing.meter_events.create_async(
                    {
                        "event_name": self.meter,
                        "identifier": str(identifier),
                        "timestamp": int(at.timestamp()),
                        "payload": {"stripe_customer_id": customer_id, "value": str(quantity)},
                    },
                    {"idempotency_key": f"meter-{identifier}"},
                )
        except StripeRefuses as refused:
            if "already exists" not in refused.reason or str(identifier) not in refused.reason:
                raise

    def read_event(self, body: bytes, signature: str | None) -> Event:
        """A webhook's body as an event. Raises `SignatureInvalid`, `EventInvalid`."""
        try:
            signed_at = int(dict(p.split("=", 1) for p in (signature or "").split(",") if "=" in p).get("t", ""))
            if signed_at > time.time() + SIGNATURE_S:
                raise SignatureInvalid
            stripe.WebhookSignature.verify_header(body.decode(), signature or "", self._webhook_secret, SIGNATURE_S)
        except (stripe.SignatureVerificationError, ValueError):
            raise SignatureInvalid from None
        try:
            event = self._client.construct_event(body, signature or "", self._webhook_secret, SIGNATURE_S)
            what = _plain(event)["data"]["object"]
            customer = what.get("customer")
            if isinstance(customer, Mapping):
                customer = customer.get("id")
            return Event(str(event.id), str(event.type), str(customer) if customer else None)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise EventInvalid from None

    def _subscribed(self, found: Mapping[str, Any]) -> Subscribed:
        items = found["items"]["data"]
        prices = [item["price"]["id"] for item in items]
        start, end = items[0]["current_period_start"], items[0]["current_period_end"]
        ends = found.get("cancel_at") or (end if found["cancel_at_period_end"] else None)
        return Subscribed(
            id=found["id"],
            status=found["status"],
            plan=next((self._plans[price] for price in prices if price in self._plans), None),
            period_start=_at(start),
            period_end=_at(end),
            cancels_at=_at(ends) if ends and found["status"] != "canceled" else None,
        )


def _plain(found: Any) -> dict[str, Any]:
    """An object of the library as plain data, whole."""
    value: dict[str, Any] = found.to_dict()
    return value


def _by_use(price: Mapping[str, Any]) -> tuple[Decimal, int | None]:
    """Minor units per execution of the last tier, and where the free first one ends."""
    tiers = price.get("tiers") or []
    if not tiers:
        return _decimal(price), None
    is_free = len(tiers) > 1 and not _decimal(tiers[0])
    return _decimal(tiers[-1]), tiers[0].get("up_to") if is_free else 0


def _decimal(price: Mapping[str, Any]) -> Decimal:
    return Decimal(str(price.get("unit_amount_decimal") or 0))


def _invoice(found: Mapping[str, Any]) -> Invoice:
    return Invoice(
        id=found["id"],
        number=found.get("number") or "",
        status=found["status"],
        total=found["total"],
        currency=found["currency"],
        made_at=_at(found["created"]),
        page_url=_https(found.get("hosted_invoice_url")),
        pdf_url=_https(found.get("invoice_pdf")),
    )


def _https(url: str | None) -> str:
    """An address that may stand in a link."""
    return url if url and url.startswith("https://") else ""


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """Stripe's errors in our words: away (ask again) or refused (do not)."""
    try:
        yield
    except (stripe.APIConnectionError, stripe.RateLimitError, TimeoutError) as error:
        raise StripeAway from error
    except stripe.StripeError as error:
        if error.http_status is None or error.http_status >= 500 or error.http_status in (409, 429):
            raise StripeAway from error
        raise StripeRefuses(str(error.user_message or error)[:500]) from error
