"""What is said about subscriptions between Stripe and the rest of the house: plain values, and how it may go wrong.

Amounts are minor units of a currency (cents). The client is in `app/adapters/stripe.py`, which is large and loaded only
where there is a key.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from app.domain.errors import Outside, Refused


class StripeAway(Outside):
    """Stripe does not answer just now. Nothing was changed; please try again in a few minutes."""

    def __init__(self) -> None:
        super().__init__(retryable=True, code="stripe_unavailable")


class StripeRefuses(Outside):
    """Stripe did not take the request. Please write to support with the request id."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(retryable=False, code="stripe_refused")


class SignatureInvalid(Refused):
    """The signature of this webhook is missing, wrong or too old."""

    def __init__(self) -> None:
        super().__init__("webhook_signature_invalid")


class EventInvalid(Refused):
    """The body is signed, and not an event that Stripe sends."""

    def __init__(self) -> None:
        super().__init__("webhook_event_invalid")


@dataclass(frozen=True, slots=True)
class Sold:
    """The prices of a plan: the monthly one, and the one by use, which may be missing."""

    price: str
    metered: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them."""
        return (self.price,) if self.metered is None else (self.price, self.metered)


@dataclass(frozen=True, slots=True)
class PriceRead:
    """What a plan costs, as Stripe has it; `included` is the end of the free first tier of the price by use."""

    plan: str
    currency: str
    amount: int
    each: Decimal
    included: int | None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A customer's subscription. `plan` is None for a price nobody here knows; `status` as Stripe says it."""

    id: str
    status: str
    plan: str | None
    period_start: datetime
    period_end: datetime
    cancels_at: datetime | None


@dataclass(frozen=True, slots=True)
class Invoice:
    """One bill. `total` in minor units."""

    id: str
    number: str
    status: str
    total: int
    currency: str
    made_at: datetime
    page_url: str
    pdf_url: str


@dataclass(frozen=True, slots=True)
class CustomerState:
    """All that is read back of a customer: the subscription that counts, and bills, the newest first."""

    subscription: Subscribed | None
    invoices: tuple[Invoice, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """What a webhook says: something of this kind happened to this customer."""

    id: str
    type: str
    customer_id: str | None


class Payments(Protocol):
    """Who takes the money: what `app/adapters/stripe.py` can do. Everything that asks raises `StripeAway`, `StripeRefuses`."""

    sold: dict[str, Sold]

    async def close(self) -> None:
        """Hang up."""

    async def make_customer(self, account_id: UUID, name: str, email: str) -> str:
        """A customer for an account; asked twice for the same account, the same one."""

    async def open_checkout(self, customer_id: str, plan: str, *, done_url: str, back_url: str) -> str:
        """The address of a page where the customer subscribes to a plan."""

    async def open_portal(self, customer_id: str, *, back_url: str) -> str:
        """The address of a page where the customer changes cards and addresses."""

    async def change_plan(self, subscription_id: str, plan: str, *, is_upgrade: bool) -> None:
        """Move a subscription to another plan's prices at once."""

    async def set_cancelling(self, subscription_id: str, *, is_cancelling: bool) -> None:
        """Let a subscription end with its period, or go on after all."""

    async def state_of(self, customer_id: str) -> CustomerState:
        """What is known of a customer now."""

    async def read_prices(self) -> list[PriceRead]:
        """What the plans cost."""

    async def report(self, identifier: UUID, customer_id: str, quantity: int, at: datetime) -> None:
        """Report executions; the same identifier again counts nothing."""

    def read_event(self, body: bytes, signature: str | None) -> Event:
        """A webhook's body as an event. Raises `SignatureInvalid`, `EventInvalid`."""
