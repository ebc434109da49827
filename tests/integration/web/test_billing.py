"""The pages of plans, usage and invoices, and the door for Stripe's webhooks, on the whole application."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from app.accounts import outbox
from app.adapters.sealing import Sealer
from app.adapters.stripe import Stripe
from app.billing import read_back, standing
from app.billing.checkout import Desk
from app.store.db import Pool
from tests.integration.accounts.world import PASSWORD, SECRET_KEY, Tenant, new_tenant, scope_of
from tests.integration.web.pages.people import SAME
from tests.integration.web.site import Client, log_in, running, settings_for
from tests.stripe_stand_in import KEY, SECRET, SETTINGS, SOLD, StripeStandIn, event_body, signed, stripe_aside


class Seat:
    """Somebody signed in on the hosted service."""

    def __init__(self, client: Client, made: Tenant, stand_in: StripeStandIn, desk: Desk | None = None) -> None:
        self.client, self.made, self.stand_in, self.csrf = client, made, stand_in, ""
        #: A worker's, since the application runs in a thread of its own.
        self.desk = desk

    async def sign_in(self) -> "Seat":
        self.csrf = await log_in(self.client, self.made)
        return self

    async def get(self, path: str = "") -> Any:
        return await self.client.get(f"/billing{path}")

    async def post(self, path: str, **fields: str) -> Any:
        given = {"csrf_token": self.csrf, "password": PASSWORD} | fields
        return await self.client.post(f"/billing{path}", data=given, headers=SAME)

    async def webhook(self, kind: str, customer: str | None, event_id: str, **signing: Any) -> Any:
        body = event_body(event_id, kind, customer)
        return await self.client.post("/webhooks/stripe", content=body, headers=signed(body, **signing))

    async def subscribe(self, plan: str = "pro") -> str:
        """Choose a plan on the page, pay at Stripe, come back."""
        gone = await self.post("/plans", plan=plan)
        assert gone.status_code == 303, gone.text
        session = gone.headers["location"].rpartition("/")[2]
        customer = str(self.stand_in.sessions[session]["customer"])
        self.stand_in.pay(session)
        assert (await self.webhook("checkout.session.completed", customer, f"evt_{session}")).status_code == 200
        await self.work()
        return customer

    async def work(self) -> None:
        """A worker does what was asked for."""
        assert self.desk is not None
        await read_back.read_all_due(self.desk.pool, self.desk.stripe, self.desk.house)


@pytest.fixture
def stand_in() -> Iterator[StripeStandIn]:
    """Give a Stripe."""
    with stripe_aside() as made:
        yield made


@pytest.fixture
async def seat(database: str, stand_in: StripeStandIn, engine_pool: Pool) -> AsyncIterator[Seat]:
    """Give the owner of a new organization on the hosted service."""
    await engine_pool.execute("update billing_accounts set look_at = 'infinity'")
    async with running(settings_for(database, **SETTINGS, STEPWELL_STRIPE_URL=stand_in.url)) as client:
        house = standing.House("http://127.0.0.1:8288", outbox.putter(Sealer(SECRET_KEY), is_wanted=False))
        desk = Desk(engine_pool, Stripe(KEY, SECRET, SOLD, meter="executions", url=stand_in.url), house)
        found = await Seat(client, await new_tenant(database), stand_in, desk).sign_in()
        await read_back.read_prices(engine_pool, desk.stripe)
        await engine_pool.execute("update accounts set plan = 'free' where id = $1", scope_of(found.made).account_id)
        yield found
        await desk.stripe.close()


async def plan_of(pool: Pool, made: Tenant) -> str:
    found: str = await pool.fetchval("select plan from accounts where id = $1", scope_of(made).account_id)
    return found


async def test_a_plan_is_chosen_paid_and_shown(seat: Seat, engine_pool: Pool) -> None:
    page = await seat.get("/plans")
    assert "€29.00" in page.text and "€199.00" in page.text and "1.0M" in page.text
    assert "form-action 'self' https://checkout.stripe.com;" in page.headers["content-security-policy"]
    asked = await seat.get("/plans?choose=pro")
    assert "Go to payment" in asked.text
    customer = await seat.subscribe("pro")
    assert await plan_of(engine_pool, seat.made) == "pro"
    shown = (await seat.get("?done=subscribed")).text
    assert "€29.00 a month" in shown and "Cancel the plan" in shown and "Thank you" in shown
    bills = (await seat.get("/invoices")).text
    assert "https://invoice.stripe.com/i/" in bills and "Paid" in bills
    portal = await seat.post("/portal")
    assert portal.headers["location"] == "https://billing.stripe.com/p/session/test"
    assert (await seat.post("/cancel")).headers["location"] == "/billing?done=cancelled"
    assert seat.stand_in.subscription_of(customer)["cancel_at_period_end"]
    assert "Keep the plan" in (await seat.get()).text
    assert (await seat.post("/resume")).headers["location"] == "/billing?done=resumed"
    assert (await seat.post("/plans", plan="business")).headers["location"] == "/billing?done=changed"
    assert await plan_of(engine_pool, seat.made) == "business"


async def test_money_moves_only_with_the_password_of_an_owner(seat: Seat, engine_pool: Pool) -> None:
    deeds = {"/plans": {"plan": "pro"}, "/portal": {}, "/cancel": {}, "/resume": {}, "/cap": {"amount": "5"}}
    before = len(seat.stand_in.requests)
    for path, fields in deeds.items():
        for password in ("", "not the password"):
            refused = await seat.post(path, **fields, password=password)
            assert refused.status_code == 422, path
            assert "Enter your password." in refused.text or "This is not your password." in refused.text, path
        assert (await seat.client.post(f"/billing{path}", data=fields, headers=SAME)).status_code == 403, path
    for role in ("viewer", "member", "admin"):
        await engine_pool.execute(
            "update memberships set role = $2 where account_id = $1", scope_of(seat.made).account_id, role
        )
        for path, fields in deeds.items():
            assert (await seat.post(path, **fields)).status_code == 403, (role, path)
        assert "Choose Pro" not in (await seat.get("/plans")).text
        assert (await seat.get("/invoices")).status_code == (200 if role == "admin" else 403)
        assert (await seat.get("/usage")).status_code == 200
    assert len(seat.stand_in.requests) == before
    assert await plan_of(engine_pool, seat.made) == "free"


async def test_with_stripe_away_pages_show_what_is_known_and_deeds_say_so(seat: Seat) -> None:
    await seat.subscribe("pro")
    seat.stand_in.fails = lambda _method, _path: True
    for path in ("", "/usage", "/plans", "/invoices"):
        assert (await seat.get(path)).status_code == 200, path
    assert "Paid" in (await seat.get("/invoices")).text
    for path, fields in (("/plans", {"plan": "business"}), ("/portal", {}), ("/cancel", {}), ("/invoices", {})):
        answer = await seat.post(path, **fields)
        assert answer.status_code == 503, path
        assert "Stripe does not answer just now." in answer.text, path
    assert (await seat.webhook("invoice.paid", "cus_x", "evt_while_away")).status_code == 200
    assert (await seat.client.get("/health")).status_code == 200


async def test_webhooks_are_believed_once_and_only_with_a_good_signature(seat: Seat, engine_pool: Pool) -> None:
    customer = await seat.subscribe("pro")
    seat.stand_in.subscription_of(customer)["status"] = "canceled"
    for signing in ({"secret": "whsec_wrong"}, {"at": time.time() - 301}, {"at": time.time() + 400}):
        answer = await seat.webhook("customer.subscription.deleted", customer, "evt_bad", **signing)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "webhook_signature_invalid")
    unsigned = await seat.client.post("/webhooks/stripe", content=b"{}")
    assert (unsigned.status_code, unsigned.json()["errors"][0]["code"]) == (400, "webhook_signature_invalid")
    nonsense = await seat.client.post("/webhooks/stripe", content=b"[]", headers=signed(b"[]"))
    assert (nonsense.status_code, nonsense.json()["errors"][0]["code"]) == (400, "webhook_event_invalid")
    large = b"{" + b" " * (1024 * 1024) + b"}"
    assert (await seat.client.post("/webhooks/stripe", content=large, headers=signed(large))).status_code == 413
    assert await engine_pool.fetchval("select count(*) from stripe_events where id = 'evt_bad'") == 0
    await seat.work()
    assert await plan_of(engine_pool, seat.made) == "pro", "nothing was believed so far"

    for _ in range(2):
        assert (await seat.webhook("customer.subscription.deleted", customer, "evt_" + customer)).status_code == 200
    assert (await seat.webhook("of.next.year", customer, "evt_new_" + customer)).status_code == 200
    asked = await engine_pool.fetchval("select asked from billing_accounts where customer_id = $1", customer)
    await seat.work()
    assert await plan_of(engine_pool, seat.made) == "free"
    assert asked == 2, "once for the checkout, once for the end"


async def test_the_spend_cap_is_set_read_and_dropped(seat: Seat, engine_pool: Pool) -> None:
    await seat.subscribe("pro")
    assert "Spend cap" in (await seat.get()).text
    bad = await seat.post("/cap", amount="lots")
    assert bad.status_code == 422 and "Write an amount such as 50" in bad.text
    assert (await seat.post("/cap", amount="49.50")).headers["location"] == "/billing?done=cap"
    assert 'value="49.50"' in (await seat.get("?ask=cap")).text
    cap = "select spend_cap from billing_accounts where account_id = $1"
    assert await engine_pool.fetchval(cap, scope_of(seat.made).account_id) == 4950
    assert (await seat.post("/cap", amount="")).status_code == 303
    assert await engine_pool.fetchval(cap, scope_of(seat.made).account_id) is None


async def test_usage_shows_days_environments_forecast_and_the_limit(seat: Seat, engine_pool: Pool) -> None:
    scope = scope_of(seat.made)
    assert "Nothing was used in this period" in (await seat.get("/usage")).text
    await engine_pool.execute(
        "insert into usage_days (environment_id, day, account_id, runs, steps, events)"
        " values ($1, (clock() at time zone 'UTC')::date, $2, 8000, 40000, 1234)",
        scope.environment_id, scope.account_id,
    )  # fmt: skip
    page = (await seat.get("/usage")).text
    assert "48,000" in page and "of 50,000" in page and "1,234" in page and "Production" in page
    assert 'class="limit"' in page
    async with engine_pool.acquire() as conn, conn.transaction():
        assert seat.desk is not None
        await standing.settle(conn, seat.desk.house, scope.account_id)
    everywhere = (await seat.client.get("/env/production/runs")).text
    assert "More than 80 % of this month" in everywhere


async def test_nobody_sees_the_neighbours_usage_bills_or_customer(seat: Seat, engine_pool: Pool, database: str) -> None:
    customer = await seat.subscribe("pro")
    mine = scope_of(seat.made)
    await engine_pool.execute(
        "insert into usage_days (environment_id, day, account_id, runs) values ($1, (clock() at time zone 'UTC')::date, $2, 7777)",
        mine.environment_id, mine.account_id,
    )  # fmt: skip
    other = await Seat(seat.client, await new_tenant(database), seat.stand_in).sign_in()
    await engine_pool.execute("update accounts set plan = 'free' where id = $1", scope_of(other.made).account_id)
    for path in ("", "/usage", "/plans", "/invoices"):
        text = (await other.get(path)).text
        assert "7,777" not in text and customer not in text and "invoice.stripe.com" not in text, path
    assert (await other.post("/cancel")).status_code == 422
    assert (await other.post("/portal")).status_code == 422
    assert not seat.stand_in.subscription_of(customer)["cancel_at_period_end"]
    await other.post("/plans", plan="pro")
    assert len(seat.stand_in.customers) == 2


async def test_on_ones_own_machine_there_is_usage_and_nothing_else(database: str) -> None:
    async with running(settings_for(database)) as client:
        seat = Seat(client, await new_tenant(database), StripeStandIn())
        await seat.sign_in()
        assert (await seat.get()).headers["location"] == "/billing/usage"
        usage = await seat.get("/usage")
        assert usage.status_code == 200 and "The plan has no limit of executions" in usage.text
        for path in ("/plans", "/invoices"):
            assert (await seat.get(path)).status_code == 404, path
        for path in ("/plans", "/portal", "/cancel", "/resume", "/cap", "/invoices"):
            assert (await seat.post(path)).status_code == 404, path
        assert (await seat.webhook("invoice.paid", "cus_1", "evt_1")).status_code == 404


async def test_a_hosted_service_without_stripe_sells_nothing_and_works(database: str) -> None:
    async with running(settings_for(database, STEPWELL_HOSTED="1")) as client:
        seat = Seat(client, await new_tenant(database), StripeStandIn())
        await seat.sign_in()
        for path in ("", "/usage", "/plans", "/invoices"):
            page = await seat.get(path)
            assert page.status_code == 200 and "/billing?ask=portal" not in page.text, path
        assert (await seat.post("/plans", plan="pro")).status_code == 404
