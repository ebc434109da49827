"""Two organizations on the hosted service, a Stripe to pay at, and time that can be moved by what is stored."""

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from app.adapters.mail import Letter
from app.adapters.stripe import Stripe
from app.billing import checkout, plans, read_back, standing, webhook
from app.billing.checkout import Desk
from app.billing.standing import House
from app.domain.ids import AccountId
from app.store import billing
from app.store.audit import Actor
from app.store.billing import Account
from app.store.db import Connection, Pool
from tests.stripe_stand_in import KEY, SECRET, SOLD, StripeStandIn, event_body, signed
from tests.world import Tenant, make_tenant

ADA = Actor("ada@example.com")


@dataclass
class Shop:
    """The organization `tenant`; `other` is its neighbour. `letters` are those put out by transactions that committed."""

    pool: Pool
    stand_in: StripeStandIn
    tenant: Tenant
    other: Tenant
    desk: Desk
    letters: list[Letter] = field(default_factory=list)
    _events: int = 0

    @property
    def id(self) -> AccountId:
        return self.tenant.account_id

    async def account(self, tenant: Tenant | None = None) -> Account:
        async with self.pool.acquire() as conn:
            found = await billing.find_account(conn, (tenant or self.tenant).account_id)
        assert found is not None
        return found

    async def subscribe(self, plan: str = "pro", tenant: Tenant | None = None) -> str:
        """Choose a plan, pay, and let it be read back; gives the customer."""
        who = tenant or self.tenant
        url = await checkout.choose(self.desk, who.account_id, ADA, plan, email=who.email)
        assert url is not None
        self.stand_in.pay(url.rpartition("/")[2])
        await checkout.refresh(self.desk, who.account_id)
        customer = (await self.account(who)).customer_id
        assert customer is not None
        return customer

    async def heed(self, kind: str, customer: str | None, event_id: str = "", **fields: Any) -> bool:
        """A webhook arrives."""
        self._events += 1
        body = event_body(event_id or f"evt_{self.id.hex}_{self._events}", kind, customer, **fields)
        return await webhook.heed(self.pool, self.desk.stripe.read_event(body, signed(body)["stripe-signature"]))

    async def read_due(self) -> int:
        return await read_back.read_all_due(self.pool, self.desk.stripe, self.desk.house)

    async def settle(self, tenant: Tenant | None = None) -> Account:
        async with self.pool.acquire() as conn, conn.transaction():
            await standing.settle(conn, self.desk.house, (tenant or self.tenant).account_id)
        return await self.account(tenant)

    async def use(
        self, executions: int, *, day: date | None = None, tenant: Tenant | None = None, events: int = 0
    ) -> None:
        """Something was used."""
        who = tenant or self.tenant
        await self.pool.execute(
            "insert into usage_days as d (environment_id, day, account_id, runs, events) values"
            " ($1, coalesce($2, (clock() at time zone 'UTC')::date), $3, $4, $5)"
            " on conflict (environment_id, day) do update set runs = d.runs + excluded.runs, events = d.events + excluded.events",
            who.environment_id, day, who.account_id, executions, events,
        )  # fmt: skip

    async def later(self, by: timedelta) -> None:
        """Time goes by, for a payment that failed."""
        await self.pool.execute(
            "update billing_accounts set failed_since = failed_since - $2::interval where account_id = $1", self.id, by
        )

    async def audit(self, tenant: Tenant | None = None) -> list[str]:
        rows = await self.pool.fetch(
            "select action from audit_log where account_id = $1 order by at, id", (tenant or self.tenant).account_id
        )
        return [row["action"] for row in rows]

    def told(self) -> list[str]:
        """The subjects of letters to this organization's owner, and forget them."""
        mine = [one.subject.removesuffix(" · Stepwell") for one in self.letters if one.recipient == self.tenant.email]
        self.letters.clear()
        return mine


async def new_shop(pool: Pool, stand_in: StripeStandIn) -> Shop:
    """Make both organizations, on the free plan."""
    async with pool.acquire() as conn:
        mine, other = await make_tenant(conn, "Northwind"), await make_tenant(conn, "Contoso")
    letters: list[Letter] = []

    async def put_letter(conn: Connection, letter: Letter, kind: str) -> None:
        assert conn.is_in_transaction()
        letters.append(letter)

    house = House("https://stepwell.example", put_letter)
    desk = Desk(pool, Stripe(KEY, SECRET, SOLD, meter="stepwell_executions", url=stand_in.url), house)
    shop = Shop(pool, stand_in, mine, other, desk, letters)
    await read_back.read_prices(pool, desk.stripe)
    assert (await shop.settle()).has_plan == (await shop.settle(other)).has_plan == plans.FREE
    return shop
