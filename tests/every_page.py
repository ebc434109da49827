"""Every page of the product, from the route table, and a world that has something of everything to show on them.

Walks that must not forget a page (axe, hostile payloads) go through `pages`: a new route is in them by itself, and one
with a parameter nobody has named here fails, saying so.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from litestar import Litestar

from app.domain.ids import derive_uuid, millis, to_ulid, ulid_of
from app.reads.error_groups import FINGERPRINT
from tests import world
from tests.integration.web.pages.people import store_event, store_function
from tests.world import step_key

#: What a tenant may write into names, payloads and errors.
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'>"
BIDI = "safe\u202egnp.exe"
HOSTILE = SCRIPT + BIDI
PAYLOADS: dict[str, Any] = {
    "scripts": {SCRIPT: SCRIPT, "hx": "<hx-partial hx-target='#main'>", "style": "<style>*{display:none}</style>"},
    "bidi": {BIDI: [BIDI, "\u2066\u2069\u200f"]},
    "a megabyte": {"text": "x" * 1_000_000},
    "many members": {f"key-{n}": n for n in range(20_000)},
    "nul": {"text": "a\u0000b", "lone": "\ud800"},
    "deep": json.loads("[" * 900 + "]" * 900),
}

#: What begins an address that people do not look at: programs, probes, files.
_NO_PAGES = (
    "/v0",
    "/v1",
    "/v2",
    "/fn",
    "/e/",
    "/dev",
    "/invoke",
    "/static",
    "/health",
    "/ready",
    "/openapi",
    "/api",
    "/fail",
    "/metrics",
)
#: Ends of addresses that answer with something else than a page: streams, files, pieces of pages.
_PIECES = (
    "/stream",
    "/changes",
    "/payload",
    "/steps",
    "/progress",
    "/signing/apps",
    ".csv",
    "/volumes",
    "/vitals",
    "/windows",
    "/inside",
    "/csv",
    "/export",
)
#: The same page in other states, by the name of its route; each is a query.
STATES: dict[str, tuple[str, ...]] = {
    "environments": ("view=archived", "q=nothing"),
    "events": ("internal=1", "q=zzz"),
    "functions": ("q=zzz",),
    "apps": ("state=archived",),
    "function": ("vitals=1",),
    "start": ("sdk=go",),
    "signing_keys": ("apps=1",),
    "runs": ("q=01KAQ7M4VXE8T2R6H9BZC3WDNP", "status=failed&status=-running&fn=-shop-x&last=7d"),
    "run": ("step=run&tab=input", "step=run&tab=output"),
    "bulk_new": ("action=replay&all=1&status=failed",),
    "go": ("q=order", "q=zzz"),
    "errors": ("state=muted",),
    "billing": ("ask=portal", "ask=cancel", "ask=cap"),
    "billing_plans": ("choose=business",),
}


#: Without this query there is no such page.
_NEEDED = {"override_form": "?what=hold"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What stands for the parameters of addresses; `hostile` by the kind of payload, where runs and events differ."""

    values: Mapping[str, str]
    hostile: Mapping[str, Mapping[str, str]]


def pages(app: Litestar, values: Mapping[str, str], *, with_states: bool = True) -> dict[str, str]:
    """Addresses of all pages by a name, `values` standing for their parameters.

    Raises AssertionError for a parameter that `values` does not know: give it a value, or the page stays unseen.
    """
    found: dict[str, str] = {}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if "GET" not in handler.http_methods or not _is_page(route.path):
                continue
            address = _filled(route.path, values)
            name = handler.name or route.path
            found[name] = address + _NEEDED.get(name, "")
            for query in STATES.get(name, ()) if with_states else ():
                found[f"{name}?{query}"] = f"{address}?{query}"
    return found


def _is_page(path: str) -> bool:
    return path == "/dev/ui" or not (path.startswith(_NO_PAGES) or path.endswith(_PIECES))


def _filled(path: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        assert name in values, f"tests/every_page.py does not know what stands for {{{name}}} in {path}"
        return quote(values[name], safe="")

    return re.sub(r"\{(\w+):\w+\}", value, path)


async def furnish(owner: Any, tenant: world.Tenant) -> Shown:
    """Write a world to look at, beautiful and hostile, as the owner of the database."""
    now = await owner.fetchval("select clock()")
    stories = await world.make_showcase(owner, tenant, now)
    full = await store_function(
        owner, tenant, "nightly-report", triggers=[{"cron": "TZ=Europe/Oslo 0 9 * * 1-5"}, {"event": "report/*"}],
        throttle={"limit": 3, "period": "10s"}, idempotency="event.data.cart", concurrency=[{"limit": 5}],
    )  # fmt: skip
    await world.order_failed(full, now).save(owner)
    await owner.execute(
        "update functions set paused_at = clock() where slug = 'growth-sync-crm-contact' and environment_id = $1",
        tenant.environment_id,
    )
    hostile = await _hostile_code(owner, tenant)
    sync = await _syncs(owner, tenant, full, hostile)
    bulk = await _bulk(owner, tenant, stories)
    await _billing(owner, tenant)
    values = {
        "slug": tenant.slug,
        "fn": full.slug,
        "app": "shop",
        "sync_id": str(sync),
        "event_id": to_ulid(stories["completed"].event_id),
        "run_id": stories["failed"].ulid,
        "bulk_id": to_ulid(bulk),
        "view_id": to_ulid(await _view(owner, tenant)),
        "name": "order/placed",
        "fingerprint": await _fingerprint(owner, stories["failed"].id),
        "token": "nothing-has-this-token",
        "provider": "nothing-has-this-provider",
    }
    kinds = {}
    for kind, payload in PAYLOADS.items():
        story = world.Story(hostile, now, event_name=HOSTILE, event_data=payload).begin()
        story.call("step", 20).settle("step", output=payload, given=payload)
        await story.fail(world.error(SCRIPT + kind, BIDI + kind, "\n".join([SCRIPT, BIDI] * 200))).save(owner)
        # Events with half of a surrogate pair are refused at the door; outputs of steps are stored as they are.
        data = {name: value for name, value in payload.items() if name != "lone"} if kind == "nul" else {"it": payload}
        event = await store_event(owner, tenant, HOSTILE, json.dumps({"name": HOSTILE, "data": data}))
        kinds[kind] = {
            **values, "run_id": story.ulid, "event_id": to_ulid(event), "fn": str(hostile.id), "name": HOSTILE,
            "app": str(hostile.app_id), "sync_id": str(derive_uuid("sync", str(tenant.environment_id), "x")), "fingerprint": await _fingerprint(owner, story.id),
        }  # fmt: skip
    return Shown(values, kinds)


async def _hostile_code(owner: Any, tenant: world.Tenant) -> world.Function:
    """An app and a function whose every text is hostile."""
    function = await world.make_function(owner, tenant, HOSTILE, app=HOSTILE)
    text = json.dumps(
        {"id": function.slug, "name": HOSTILE, "triggers": [{"event": HOSTILE, "expression": f"event.data.x == '{BIDI}'"}],
         "steps": {"step": {"id": "step", "name": "step", "runtime": {"type": "http", "url": HOSTILE}}}}
    )  # fmt: skip
    await owner.execute("update functions set config = $2, url = $3 where id = $1", function.id, text, HOSTILE)
    await owner.execute(
        "update apps set url = $2, sdk = $2, framework = $2, error = $2 where id = $1", function.app_id, HOSTILE
    )
    return function


async def _syncs(owner: Any, tenant: world.Tenant, function: world.Function, hostile: world.Function) -> Any:
    """A sync that changed something, one that failed, and two that failed of no app."""
    for app, url, code, error in (
        (hostile.app_id, "http://127.0.0.1:3000/api/inngest", "x", HOSTILE),
        (None, "http://127.0.0.1:3000/api/inngest", "http_unreachable", "The app could not be reached."),
        (None, HOSTILE, "hostile", HOSTILE),
    ):
        await owner.execute(
            "insert into syncs (id, account_id, environment_id, app_id, url, kind, status, sdk, error_code, error, fix)"
            " values ($1, $2, $3, $4, $5, 'in_band', 'failed', $7, $6, $7, $7)",
            derive_uuid("sync", str(tenant.environment_id), code),
            tenant.account_id, tenant.environment_id, app, url, code, error,
        )  # fmt: skip
    made = derive_uuid("sync", str(tenant.environment_id), "good")
    await owner.execute(
        "insert into syncs (id, account_id, environment_id, app_id, url, kind, status, sdk, added, changed, removed)"
        " values ($1, $2, $3, $4, 'http://127.0.0.1:3000/api/inngest', 'in_band', 'succeeded', 'js:v3.54.2', $5, $6, $7)",
        made, tenant.account_id, tenant.environment_id, function.app_id, [function.slug, HOSTILE], ["shop-a"], ["shop-b"],
    )  # fmt: skip
    return made


async def _bulk(owner: Any, tenant: world.Tenant, stories: Mapping[str, world.Story]) -> Any:
    now = await owner.fetchval("select clock()")
    bulk_id = ulid_of(millis(now), tenant.environment_id.bytes[:10])
    await owner.execute(
        "insert into bulk_actions (id, account_id, environment_id, action, from_step, token, reason, total, actor)"
        " values ($1, $2, $3, 'replay', 'start', $4, $5, 2, 'ada@example.com')",
        bulk_id, tenant.account_id, tenant.environment_id, str(bulk_id), HOSTILE,
    )  # fmt: skip
    for name, state in (("failed", "done"), ("completed", "failed")):
        await owner.execute(
            "insert into bulk_items (bulk_id, run_id, account_id, environment_id, state, detail, ended_at)"
            " values ($1, $2, $3, $4, $5, $6, clock())",
            bulk_id, stories[name].id, tenant.account_id, tenant.environment_id, state, HOSTILE,
        )  # fmt: skip
    return bulk_id


async def _billing(owner: Any, tenant: world.Tenant) -> None:
    """A month of use by two environments, a plan that is paid for with a payment open, and bills of every state."""
    whose = tenant.account_id
    other = derive_uuid("environment", str(whose), "staging")
    await owner.execute(
        "insert into environments (id, account_id, name, slug, kind) values ($1, $2, 'Staging', 'staging-x', 'custom')",
        other, whose,
    )  # fmt: skip
    for environment, factor in ((tenant.environment_id, 9), (other, 2)):
        await owner.execute(
            "insert into usage_days (environment_id, day, account_id, runs, steps, events)"
            " select $1, d::date, $2, n * 1200, n * 4100, n * 1900 from generate_series((clock() at time zone 'UTC')::date - 40,"
            " (clock() at time zone 'UTC')::date, interval '1 day') d, lateral (select $3::int + extract(isodow from d)::int % 4 as n) x",
            environment, whose, factor,
        )  # fmt: skip
    await owner.execute(
        "insert into billing_prices (plan, currency, amount, each, included) values ('pro', 'eur', 2900, 0.005, 1000000),"
        " ('business', 'eur', 19900, 0, null) on conflict do nothing"
    )
    await owner.execute(
        "insert into billing_accounts (account_id, customer_id, subscription_id, status, plan, period_start, period_end,"
        " failed_since, stage, spend_cap, read_at) values ($1, $2, 'sub_1', 'past_due', 'pro', clock() - interval '20 days',"
        " clock() + interval '10 days', clock() - interval '4 days', 'past_due', 5000, clock())",
        whose, f"cus_{whose.hex}",
    )  # fmt: skip
    await owner.execute("update accounts set plan = 'pro', notice = 'past_due' where id = $1", whose)
    for n, status in enumerate(("open", "paid", "void", "uncollectible", "of next year")):
        await owner.execute(
            "insert into billing_invoices (id, account_id, number, status, total, currency, made_at, page_url, pdf_url)"
            " values ($1, $2, $3, $4, $5, 'eur', clock() - $6 * interval '30 days', $7, $7)",
            f"in_{whose.hex}_{n}", whose, HOSTILE if n == 4 else f"A1B2C3-000{n}", status, 2900 + 640 * n, n,
            f"https://invoice.stripe.com/i/{n}",
        )  # fmt: skip


async def _view(owner: Any, tenant: world.Tenant) -> Any:
    """A saved view of the runs list that everybody sees."""
    view_id = derive_uuid("view", str(tenant.environment_id))
    await owner.execute(
        "insert into run_views (id, account_id, environment_id, user_id, name, filters, paths, is_shared)"
        " values ($1, $2, $3, $1, $4, 'status=failed', $5, true)",
        view_id, tenant.account_id, tenant.environment_id, HOSTILE, ["event.data.total"],
    )  # fmt: skip
    return view_id


async def _fingerprint(owner: Any, run_id: Any) -> str:
    """What the page of a run's error is called."""
    found: str = await owner.fetchval(f"select {FINGERPRINT} from runs r where r.id = $1", run_id)
    return found


#: The step of a hostile run, as an address names it.
HOSTILE_STEP = step_key("step")
