"""What is known of subscriptions, and what is on its way to Stripe. Needs the engine role, but for what pages read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.domain.ids import AccountId
from app.store.db import Connection


@dataclass(frozen=True, slots=True)
class Account:
    """An organization's billing, as it was read back last. `has_plan` is the plan whose limits hold just now.

    `stops_for` is why it starts no new runs, or None. Amounts are minor units of a currency.
    """

    account_id: AccountId
    name: str
    has_plan: str
    stops_for: str | None
    notice: str
    customer_id: str | None
    subscription_id: str | None
    status: str
    plan: str | None
    plan_by_hand: str | None
    period_start: datetime | None
    period_end: datetime | None
    cancels_at: datetime | None
    failed_since: datetime | None
    stage: str
    spend_cap: int | None
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's turn to read an account back. `asked` and `ticket` are what was true when it began."""

    account_id: AccountId
    customer_id: str
    asked: int
    ticket: int


@dataclass(frozen=True, slots=True)
class Bill:
    """An invoice as it was read back last."""

    id: str
    number: str
    status: str
    total: int
    currency: str
    made_at: datetime
    page_url: str
    pdf_url: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan costs, as Stripe had it at `read_at`."""

    plan: str
    currency: str
    amount: int
    each: Decimal
    included: int | None
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Slice:
    """Executions to be reported. `tried_at` is set when it may be there already."""

    id: UUID
    customer_id: str
    quantity: int
    made_at: datetime
    tried_at: datetime | None


_ACCOUNT = (
    "select a.id, a.name, a.plan, a.stops_for, a.notice, b.customer_id, b.subscription_id, coalesce(b.status, 'none'),"
    " b.plan, b.plan_by_hand, b.period_start, b.period_end, b.cancels_at, b.failed_since, coalesce(b.stage, 'fine'),"
    " b.spend_cap, b.read_at from accounts a left join billing_accounts b on b.account_id = a.id where a.id = $1"
)


async def find_account(conn: Connection, account_id: AccountId, *, locks: bool = False) -> Account | None:
    """An organization's billing; `locks` its account's row until the end."""
    row = await conn.fetchrow(_ACCOUNT + (" for no key update of a" if locks else ""), account_id)
    return row and Account(*row)


async def owners_of(conn: Connection, account_id: AccountId) -> list[str]:
    """The addresses of the people who may pay."""
    rows = await conn.fetch(
        "select u.email from memberships m join users u on u.id = m.user_id where m.account_id = $1 and m.role = 'owner'"
        " order by u.email limit 50",
        account_id,
    )
    return [row["email"] for row in rows]


async def ensure(conn: Connection, account_id: AccountId) -> None:
    """Make the row of an account's billing where it is missing."""
    await conn.execute("insert into billing_accounts (account_id) values ($1) on conflict do nothing", account_id)


async def set_customer(conn: Connection, account_id: AccountId, customer_id: str) -> str:
    """Remember the customer of an account; the first one stays. Gives the one that holds."""
    held: str = await conn.fetchval(
        "insert into billing_accounts as b (account_id, customer_id, look_at) values ($1, $2, clock())"
        " on conflict (account_id) do update set customer_id = coalesce(b.customer_id, excluded.customer_id),"
        " look_at = clock() returning customer_id",
        account_id,
        customer_id,
    )
    return held


async def set_cap(conn: Connection, account_id: AccountId, cap: int | None) -> None:
    """Set or drop the spend cap."""
    await ensure(conn, account_id)
    await conn.execute("update billing_accounts set spend_cap = $2 where account_id = $1", account_id, cap)


async def set_plan_by_hand(conn: Connection, account_id: AccountId, plan: str | None) -> None:
    """Give a plan by hand, or take it back."""
    await ensure(conn, account_id)
    await conn.execute("update billing_accounts set plan_by_hand = $2 where account_id = $1", account_id, plan)


async def set_stage(conn: Connection, account_id: AccountId, stage: str) -> None:
    """Note how far a failed payment has come."""
    await conn.execute("update billing_accounts set stage = $2 where account_id = $1", account_id, stage)


async def set_standing(
    conn: Connection, account_id: AccountId, *, plan: str, stops_for: str | None, notice: str, is_loud: bool
) -> None:
    """Write what holds for an account; `is_loud` has every process load its environments' functions and limits anew."""
    await conn.execute(
        "update accounts set plan = $2, stops_for = $3, notice = $4 where id = $1", account_id, plan, stops_for, notice
    )
    if is_loud:
        await conn.execute(
            "update environments set catalogue_version = catalogue_version + 1 where account_id = $1", account_id
        )


async def note_once(conn: Connection, account_id: AccountId, period: date, kind: str) -> bool:
    """Whether this is the first time in the period that somebody is told of this."""
    return bool(
        await conn.fetchval(
            "insert into billing_notices (account_id, period, kind) values ($1, $2, $3) on conflict do nothing returning true",
            account_id,
            period,
            kind,
        )
    )


# ------------------------------------------------------------------ reading back


async def ask(conn: Connection, *, customer_id: str | None = None, account_id: AccountId | None = None) -> bool:
    """Want the state of a customer or an account read back soon; false when there is none."""
    return bool(
        await conn.fetchval(
            "update billing_accounts set asked = asked + 1, look_at = clock() where customer_id is not null"
            " and (customer_id = $1 or account_id = $2) returning true",
            customer_id,
            account_id,
        )
    )


async def claim(conn: Connection, *, retry: timedelta, account_id: AccountId | None = None) -> Claim | None:
    """Take the next account that is due, or the given one; unless it is done it comes back after `retry`, later each time."""
    row = await conn.fetchrow(
        "update billing_accounts set ticket = ticket + 1, failures = failures + 1,"
        " look_at = clock() + $1::interval * least(failures + 1, 60)"
        " where account_id = (select account_id from billing_accounts where customer_id is not null"
        "   and ($2::uuid is null and look_at <= clock() or account_id = $2) order by look_at limit 1 for update skip locked)"
        " returning account_id, customer_id, asked, ticket",
        retry,
        account_id,
    )
    return row and Claim(AccountId(row["account_id"]), row["customer_id"], row["asked"], row["ticket"])


async def write_state(
    conn: Connection, claim: Claim, subscription: Any, invoices: Sequence[Any], *, owes: bool, again: timedelta
) -> bool:
    """Write what was read back; false when somebody who began later has written already.

    `subscription` and `invoices` are those of `adapters.stripe`. `owes` begins the count of a failed payment, or ends it.
    A subscription that just began is charged for what is used from now on.
    """
    before = await conn.fetchrow(
        "select subscription_id, status from billing_accounts where account_id = $1 and applied < $2 for update",
        claim.account_id,
        claim.ticket,
    )
    if before is None:
        return False
    s = subscription
    await conn.execute(
        """update billing_accounts set applied = $2, subscription_id = $3, status = $4, plan = $5, period_start = $6,
             period_end = $7, cancels_at = $8, failures = 0, read_at = clock(),
             failed_since = case when $9 then coalesce(failed_since, clock()) end,
             look_at = case when asked > $10 then clock() else clock() + $11::interval end
           where account_id = $1""",
        claim.account_id,
        claim.ticket,
        s and s.id,
        s.status if s else "none",
        s and s.plan,
        s and s.period_start,
        s and s.period_end,
        s and s.cancels_at,
        owes,
        claim.asked,
        again,
    )
    if s is not None and s.id != before["subscription_id"]:
        await forgive(conn, claim.account_id)
    for one in invoices:
        await conn.execute(
            "insert into billing_invoices (id, account_id, number, status, total, currency, made_at, page_url, pdf_url)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (id) do update set number = excluded.number,"
            " status = excluded.status, total = excluded.total, page_url = excluded.page_url, pdf_url = excluded.pdf_url"
            " where billing_invoices.account_id = excluded.account_id",
            one.id,
            claim.account_id,
            one.number,
            one.status,
            one.total,
            one.currency,
            one.made_at,
            one.page_url,
            one.pdf_url,
        )
    return True


async def list_bills(conn: Connection, account_id: AccountId, limit: int = 36) -> list[Bill]:
    """The bills of an account, the newest first."""
    rows = await conn.fetch(
        "select id, number, status, total, currency, made_at, page_url, pdf_url from billing_invoices"
        " where account_id = $1 order by made_at desc, id limit $2",
        account_id,
        limit,
    )
    return [Bill(*row) for row in rows]


async def put_event(conn: Connection, event_id: str, kind: str) -> bool:
    """Remember an event of Stripe's; false when it was seen before."""
    return bool(
        await conn.fetchval(
            "insert into stripe_events (id, type) values ($1, $2) on conflict do nothing returning true", event_id, kind
        )
    )


async def drop_events(conn: Connection, *, older: timedelta, limit: int = 1000) -> int:
    """Forget events that Stripe does not send again any more."""
    rows = await conn.fetch(
        "delete from stripe_events where id in (select id from stripe_events where received_at < clock() - $1::interval"
        " limit $2) returning 1",
        older,
        limit,
    )
    return len(rows)


# ------------------------------------------------------------------ prices


async def put_prices(conn: Connection, prices: Sequence[Any]) -> None:
    """Write what plans cost (`adapters.stripe.PriceRead`); plans that are not sold any more go."""
    await conn.execute("delete from billing_prices where plan <> all($1::text[])", [p.plan for p in prices])
    for p in prices:
        await conn.execute(
            "insert into billing_prices (plan, currency, amount, each, included) values ($1, $2, $3, $4, $5)"
            " on conflict (plan) do update set currency = excluded.currency, amount = excluded.amount,"
            " each = excluded.each, included = excluded.included, read_at = clock()",
            p.plan,
            p.currency,
            p.amount,
            p.each,
            p.included,
        )


async def list_prices(conn: Connection) -> dict[str, Cost]:
    """What plans cost, by plan."""
    rows = await conn.fetch("select plan, currency, amount, each, included, read_at from billing_prices")
    return {row["plan"]: Cost(*row) for row in rows}


# ------------------------------------------------------------------ reports of use


async def cut_slices(conn: Connection, plans: Sequence[str], limit: int = 200) -> int:
    """Make slices of what is used and not reported, of accounts that subscribe to one of `plans`; returns how many.

    The days' `reported` moves in the same statement, so each execution is in one slice, whoever cuts.
    """
    rows = await conn.fetch(
        """with due as (
             select d.* from (
               -- From the side of those who pay: of the others, every day there was is unreported.
               select account_id from billing_accounts where customer_id is not null and plan = any($1)
                 and plan_by_hand is null and status in ('active', 'trialing', 'past_due') and stage <> 'downgraded' offset 0
             ) b cross join lateral (
               select u.environment_id, u.day, u.account_id, u.runs + u.steps as total, u.runs + u.steps - u.reported as new
               from usage_days u where u.account_id = b.account_id and u.runs + u.steps > u.reported
               limit $2 for update skip locked
             ) d limit $2
           ), moved as (
             update usage_days u set reported = d.total from due d
             where u.environment_id = d.environment_id and u.day = d.day
           ), summed as (
             select account_id, sum(new)::bigint as quantity from due group by 1
           )
           insert into meter_slices (id, account_id, customer_id, quantity)
           select gen_random_uuid(), s.account_id, b.customer_id, s.quantity from summed s
           join billing_accounts b on b.account_id = s.account_id returning id""",
        list(plans),
        limit,
    )
    return len(rows)


async def forgive(conn: Connection, account_id: AccountId) -> None:
    """Charge nobody for what an account used so far."""
    await conn.execute(
        "update usage_days set reported = runs + steps where account_id = $1 and runs + steps > reported", account_id
    )


async def claim_slice(conn: Connection, *, retry: timedelta) -> Slice | None:
    """Take the next slice that is due; unless it is marked it comes back after `retry`. Its `tried_at` is from before."""
    row = await conn.fetchrow(
        "with due as (select id, tried_at from meter_slices where state = 'waiting' and due_at <= clock() order by due_at"
        " limit 1 for update skip locked) update meter_slices m set due_at = clock() + $1::interval, tried_at ="
        " coalesce(m.tried_at, clock()) from due d where m.id = d.id"
        " returning m.id, m.customer_id, m.quantity, m.made_at, d.tried_at",
        retry,
    )
    return row and Slice(*row)


async def mark_slice(conn: Connection, slice_id: UUID, state: str, error: str = "") -> None:
    """A slice is `sent`, `unsure` or `refused`; `waiting` when Stripe surely does not have it."""
    await conn.execute(
        "update meter_slices set state = $2, error = $3, tried_at = case when $2 = 'waiting' then null else tried_at end,"
        " ended_at = case when $2 <> 'waiting' then clock() end where id = $1 and state = 'waiting'",
        slice_id,
        state,
        error,
    )


async def drop_slices(conn: Connection, *, older: timedelta, limit: int = 1000) -> int:
    """Forget slices that were sent long ago; those that were not stay for people to look at."""
    rows = await conn.fetch(
        "delete from meter_slices where id in (select id from meter_slices where state = 'sent'"
        " and ended_at < clock() - $1::interval limit $2) returning 1",
        older,
        limit,
    )
    return len(rows)


async def accounts_to_settle(conn: Connection, after: UUID, limit: int) -> list[AccountId]:
    """Accounts whose standing may have changed: used lately, told something, stopped, or with a payment that failed."""
    rows = await conn.fetch(
        """select x.id from (
             select distinct d.account_id as id from usage_days d where d.day >= (clock() at time zone 'UTC')::date - 1
             union select a.id from accounts a where a.stops_for is not null or a.notice <> ''
             union select b.account_id from billing_accounts b where b.stage <> 'fine' or b.failed_since is not null
             -- Made since the last time: what one's own machine gives is not what the hosted service gives.
             union select a.id from accounts a where a.plan = 'self_hosted'
           ) x where x.id > $1 order by x.id limit $2""",
        after,
        limit,
    )
    return [AccountId(row["id"]) for row in rows]
