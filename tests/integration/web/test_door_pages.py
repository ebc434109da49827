"""Environments, keys and the set-up guide: what they do, what they hide, and whom they refuse."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.supervise.state import free_port
from app.web.pages import environments, event_keys, signing_keys, start
from tests.integration.accounts.world import Tenant, new_tenant
from tests.integration.web.site import Client, log_in, running, settings_for

TEXT = {"accept": "text/plain"}
"""What the copy button asks with."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Somebody who is signed in, with the token for their forms."""

    client: Client
    tenant: Tenant
    token: str
    database: str

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """Ask for a page."""
        return await self.client.get(path, headers=headers)

    async def post(
        self, path: str, data: dict[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Send a form with its token."""
        return await self.client.post(path, data={"csrf_token": self.token} | (data or {}), headers=headers)

    async def query(self, statement: str, *arguments: object) -> list[Any]:
        """Look into the database."""
        connection = await asyncpg.connect(self.database)
        try:
            found: list[Any] = await connection.fetch(statement, *arguments)
            return found
        finally:
            await connection.close()

    async def audited(self, action: str) -> int:
        """Count lines of the audit log."""
        rows = await self.query(
            "select from audit_log where account_id = $1::text::uuid and action = $2",
            self.tenant["organization_id"],
            action,
        )
        return len(rows)

    async def become(self, role: str) -> None:
        """Have another role from now on."""
        await self.query(
            "update memberships set role = $2 where account_id = $1::text::uuid", self.tenant["organization_id"], role
        )

    async def key_ids(self, kind: str) -> list[str]:
        """The ids of the environment's keys, oldest first."""
        rows = await self.query(
            f"select id from {kind}_keys where environment_id = $1::text::uuid order by created_at",
            self.tenant["environment_id"],
        )
        return [str(row["id"]) for row in rows]


@pytest.fixture
async def seat(database: str) -> AsyncIterator[Seat]:
    """Give an owner at their desk."""
    tenant = await new_tenant(database)
    async with running(settings_for(database, STEPWELL_ALLOW_PRIVATE_APPS="1")) as client:
        yield Seat(client, tenant, await log_in(client, tenant), database)


# ------------------------------------------------------------------ environments


async def test_a_new_environment_has_keys_of_its_own_and_its_guide_is_next(seat: Seat) -> None:
    answer = await seat.post("/env/new", {"name": "Staging Ä"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/env/staging-a/start")
    assert "event-test-••••" in (await seat.get("/env/staging-a/start")).text
    listed = (await seat.get("/env")).text
    assert "Staging Ä" in listed
    assert 'href="/env/staging-a/keys/events"' in listed


@pytest.mark.parametrize(
    ("name", "sentence"), [("", "A name has 1 to 100 characters"), ("production", "There is one of that name already")]
)
async def test_a_name_that_cannot_be_is_refused_beside_its_field(seat: Seat, name: str, sentence: str) -> None:
    answer = await seat.post("/env/new", {"name": name})
    assert answer.status_code == 422
    assert re.search(rf'id="name-error">{sentence}', answer.text)


async def test_an_environment_named_new_does_not_hide_the_page_that_makes_them(seat: Seat) -> None:
    answer = await seat.post("/env/new", {"name": "New"})
    assert answer.headers["location"] == "/env/new-1/start"
    assert "<h1>New environment</h1>" in (await seat.get("/env/new")).text


async def test_an_archived_environment_refuses_events_until_it_is_unarchived(seat: Seat) -> None:
    await seat.post("/env/new", {"name": "Staging"})
    key = (await seat.query("select id from event_keys where prefix = 'event-test-' order by created_at desc"))[0]["id"]
    secret = (await seat.post(f"/env/staging/keys/events/{key}/reveal", headers=TEXT)).text
    event = {"name": "demo/hello", "data": {}}
    assert (await seat.post("/env/staging/archive")).headers["location"].startswith("/env?done=archived")
    assert (await seat.client.post(f"/e/{secret}", json=event)).status_code == 401
    assert "This environment is archived" in (await seat.get("/env/staging/keys/events")).text
    refused = await seat.post("/env/staging/start/event", {"name": "demo/hello", "data": "{}"})
    assert "The environment is archived." in refused.text
    assert "Staging" in (await seat.get("/env?view=archived")).text
    assert (
        "Staging is in use again."
        in (await seat.get((await seat.post("/env/staging/unarchive")).headers["location"])).text
    )
    assert await seat.audited("environment.archived") == await seat.audited("environment.unarchived") == 1


async def test_production_cannot_be_archived(seat: Seat) -> None:
    assert (await seat.post("/env/production/archive")).status_code == 400
    assert await seat.audited("environment.archived") == 0


async def test_the_switcher_keeps_the_section(seat: Seat) -> None:
    headers = {"hx-request": "true", "hx-request-type": "partial", "hx-target": "div#switcher-list"}
    answer = await seat.get("/env?section=signing-keys&from=production", headers=headers)
    assert 'href="/env/production/keys/signing"' in answer.text
    assert "<html" not in answer.text
    strange = await seat.get("/env?section=//evil.example&from=production", headers=headers)
    assert 'href="/env/production/runs"' in strange.text


# ------------------------------------------------------------------ keys


@pytest.mark.parametrize("kind", ["event", "signing"])
async def test_a_secret_is_in_no_answer_that_was_not_asked_for_by_post(seat: Seat, kind: str) -> None:
    secret = seat.tenant[f"{kind}_key"]
    path = "/env/production/keys/" + ("events" if kind == "event" else "signing")
    key = (await seat.key_ids(kind))[0]
    for page in (path, "/env/production/start", "/env"):
        assert secret[12:-4] not in (await seat.get(page)).text
    assert await seat.audited(f"{kind}_key.revealed") == 0
    copied = await seat.post(f"{path}/{key}/reveal", headers=TEXT)
    assert (copied.text, copied.headers["cache-control"]) == (secret, "no-store")
    whole = await seat.post(f"{path}/{key}/reveal")
    assert secret in whole.text
    assert whole.headers["refresh"] == f"60; url={path}"
    headers = {"hx-request": "true", "hx-request-type": "partial", "hx-target": f"span#key-{key}"}
    row = await seat.post(f"{path}/{key}/reveal", headers=headers)
    assert secret in row.text
    assert 'data-hide-after="60"' in row.text
    assert "<html" not in row.text
    assert secret not in (await seat.get(path, headers=headers)).text
    assert await seat.audited(f"{kind}_key.revealed") == 3
    assert (await seat.client.post(f"{path}/{key}/reveal")).status_code == 403, "no token, no secret"


async def test_a_revoked_event_key_is_listed_and_opens_no_more(seat: Seat) -> None:
    made = await seat.post("/env/production/keys/events", {"name": "Checkout <b>"})
    assert "The key is ready." in (await seat.get(made.headers["location"])).text
    key = (await seat.key_ids("event"))[1]
    assert (await seat.post(f"/env/production/keys/events/{key}/revoke")).status_code == 303
    listed = (await seat.get("/env/production/keys/events")).text
    assert "Checkout &lt;b&gt;" in listed
    assert "Revoked" in listed
    assert (await seat.post(f"/env/production/keys/events/{key}/reveal")).status_code == 404


async def test_signing_keys_rotate_in_four_steps(seat: Seat) -> None:
    path = "/env/production/keys/signing"
    await seat.post(path)
    await seat.post(path)  # Pressed twice: there is one next key still.
    old, new = await seat.key_ids("signing")
    block = (await seat.post(f"{path}/block")).text
    secret = (await seat.post(f"{path}/{new}/reveal", headers=TEXT)).text
    assert block == f"INNGEST_SIGNING_KEY={secret}\nINNGEST_SIGNING_KEY_FALLBACK={seat.tenant['signing_key']}\n"
    assert (await seat.post(f"{path}/{old}/revoke")).status_code == 409, "the current key signs"
    assert "No app is synced here" in (await seat.get(f"{path}/apps")).text
    assert (await seat.post(f"{path}/{new}/promote")).status_code == 303
    page = (await seat.get(path)).text
    assert "Former key" in page
    assert (await seat.get(f"{path}/apps")).status_code == 404, "there is no next key any more"
    assert (await seat.post(f"{path}/{old}/revoke")).status_code == 303
    assert [row["state"] for row in await seat.query(
        "select state from signing_keys where id = any($1::uuid[]) order by created_at", [old, new])] == ["revoked", "current"]  # fmt: skip


async def test_an_app_that_does_not_know_the_new_key_holds_up_the_rotation(seat: Seat) -> None:
    await seat.query(
        "insert into apps (id, account_id, environment_id, name, url) values ($1, $2::text::uuid, $3::text::uuid, 'shop', $4)",
        uuid4(), seat.tenant["organization_id"], seat.tenant["environment_id"], "http://127.0.0.1:1/api/inngest",
    )  # fmt: skip
    path = "/env/production/keys/signing"
    await seat.post(path)
    new = (await seat.key_ids("signing"))[1]
    assert "No answer" in (await seat.get(f"{path}/apps")).text
    held = await seat.post(f"{path}/{new}/promote")
    assert held.status_code == 422
    assert "Type Production to rotate" in held.text
    assert (await seat.post(f"{path}/{new}/promote", {"name": "Production"})).status_code == 303


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        ("viewer", "/env/production/keys/events/{event}/reveal", 403),
        ("viewer", "/env/production/keys/signing/{signing}/reveal", 403),
        ("viewer", "/env/production/start/keys", 403),
        ("viewer", "/env/production/start/sync", 403),
        ("viewer", "/env/production/start/event", 403),
        ("member", "/env/production/keys/events", 403),
        ("member", "/env/production/keys/events/{event}/revoke", 403),
        ("member", "/env/production/keys/signing", 403),
        ("member", "/env/new", 403),
        ("member", "/env/production/keys/events/{event}/reveal", 200),
    ],
)
async def test_roles_bound_what_one_may_do(seat: Seat, role: str, path: str, status: int) -> None:
    event, signing = (await seat.key_ids("event"))[0], (await seat.key_ids("signing"))[0]
    await seat.become(role)
    assert (await seat.post(path.format(event=event, signing=signing), {"name": "x"})).status_code == status


# ------------------------------------------------------------------ the guide


async def test_the_tab_that_was_open_is_remembered(seat: Seat) -> None:
    assert "inngest.flask" in (await seat.get("/env/production/start?sdk=py-flask")).text
    assert "inngest.flask" in (await seat.get("/env/production/start")).text
    part = await seat.get(
        "/env/production/start?sdk=go",
        headers={"hx-request": "true", "hx-request-type": "partial", "hx-target": "div#sample"},
    )
    assert "inngestgo" in part.text
    assert "<html" not in part.text


async def test_the_block_is_complete_and_its_opening_is_noted(seat: Seat) -> None:
    block = (await seat.post("/env/production/start/keys?sdk=ts-node", headers=TEXT)).text
    assert block.splitlines() == [
        "INNGEST_BASE_URL=http://127.0.0.1:8288",
        f"INNGEST_EVENT_KEY={seat.tenant['event_key']}",
        f"INNGEST_SIGNING_KEY={seat.tenant['signing_key']}",
        "INNGEST_DEV=0",
    ]
    assert await seat.audited("event_key.revealed") == await seat.audited("signing_key.revealed") == 1


async def test_a_test_event_is_stored_and_shown_as_such(seat: Seat) -> None:
    answer = await seat.post("/env/production/start/event", {"name": "demo/hello", "data": '{"name": "Ada"}'})
    assert answer.status_code == 303
    assert "No app is synced, so nothing runs." in (await seat.get(answer.headers["location"])).text
    rows = await seat.query(
        "select name, payload from events where environment_id = $1::text::uuid", seat.tenant["environment_id"]
    )
    assert [(row["name"], '"name":"Ada"' in row["payload"]) for row in rows] == [("demo/hello", True)]


@pytest.mark.parametrize(
    ("name", "data", "field"),
    [
        ("", "{}", "name"),
        ("inngest/internal", "{}", "name"),
        ("demo/hello", "{", "data"),
        ("demo/hello", "[]", "data"),
        ("demo/hello", '{"a": NaN}', "data"),
        ("demo/hello", '{} , "id": "x"', "data"),
    ],
)
async def test_an_event_that_cannot_be_is_refused_beside_its_field(
    seat: Seat, name: str, data: str, field: str
) -> None:
    answer = await seat.post("/env/production/start/event", {"name": name, "data": data})
    assert answer.status_code == 422
    assert f'id="{field}-error"' in answer.text


async def test_without_scripts_a_sync_that_fails_says_why_on_the_page(seat: Seat) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    answer = await seat.post("/env/production/start/sync", {"url": url})
    assert answer.status_code == 422
    assert "The app cannot be reached" in answer.text
    assert f'value="{url}"' in answer.text
    strange = await seat.post("/env/production/start/sync", {"url": '"><b>x'})
    assert "This URL cannot be called" in strange.text
    assert 'value="&#34;&gt;&lt;b&gt;x"' in strange.text


async def test_with_scripts_a_sync_tells_its_progress_as_it_goes(seat: Seat) -> None:
    headers = {"hx-request": "true", "hx-request-type": "partial", "hx-target": "div#sync-result"}
    answer = await seat.post("/env/production/start/sync", {"url": "http://127.0.0.1:1/"}, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, last = answer.text.strip().split("\n\n")
    assert "loader" in first
    assert 'data-code="unreachable"' in last
    assert all(line.startswith("data: ") for line in answer.text.splitlines() if line)


# ------------------------------------------------------------------ two tenants


def routes() -> list[tuple[str, str]]:
    """Method and path of every route below `/env/{slug}` of these pages."""
    routers = (environments.ROUTER, event_keys.ROUTER, signing_keys.ROUTER, start.ROUTER)
    found = [
        (method, path)
        for router in routers
        for route in router.routes
        for path in [route.path_format]
        for method in getattr(route, "methods", ())
        if "{slug}" in path and method in {"GET", "POST"}
    ]
    assert len(found) >= 18
    return sorted(set(found))


@pytest.mark.parametrize(("method", "path"), routes(), ids=[f"{m} {p}" for m, p in routes()])
async def test_nobody_reaches_the_environment_or_the_keys_of_another_tenant(seat: Seat, method: str, path: str) -> None:
    await seat.post("/env/new", {"name": "Staging"})
    other = await new_tenant(seat.database)
    event, signing = await seat.key_ids("event"), await seat.key_ids("signing")
    before = await seat.query("select id, revoked_at from event_keys union select id, revoked_at from signing_keys")
    stranger = Seat(seat.client, other, await log_in(seat.client, other), seat.database)
    ours = event[0] if "events" in path else signing[0]

    async def ask(address: str) -> Any:
        return await (stranger.get(address) if method == "GET" else stranger.post(address, {"name": "x", "url": "x"}))

    # An environment that only the other tenant has; and a key of theirs below an environment of one's own.
    assert (await ask(path.replace("{slug}", "staging").replace("{key_id}", ours))).status_code == 404
    if "{key_id}" in path:
        assert (await ask(path.replace("{slug}", "production").replace("{key_id}", ours))).status_code == 404
        assert (await ask(path.replace("{slug}", "production").replace("{key_id}", "none"))).status_code == 404
    after = await seat.query("select id, revoked_at from event_keys union select id, revoked_at from signing_keys")
    assert {row["id"]: row["revoked_at"] for row in before}.items() <= {
        row["id"]: row["revoked_at"] for row in after
    }.items()


# ------------------------------------------------------------------ stepwell dev


async def test_in_dev_the_same_pages_ask_for_no_login_and_no_keys(database: str) -> None:
    async with running(settings_for(database, STEPWELL_MODE="dev", STEPWELL_DISCOVERY="0")) as client:
        guide = (await client.get("/env/dev/start")).text
        assert "INNGEST_DEV=http://127.0.0.1:8288" in guide
        assert "INNGEST_SIGNING_KEY" not in guide
        assert "Sign out" not in guide
        assert "takes every event key" in (await client.get("/env/dev/keys/events")).text
        assert "signs nothing" in (await client.get("/env/dev/keys/signing")).text
        assert (await client.get("/env")).status_code == 200
        assert (await client.get("/sign-up")).headers["location"] == "/"
        answer = await client.post("/env/dev/start/event", data={"name": "demo/hello", "data": "{}"})
        assert answer.status_code == 303
