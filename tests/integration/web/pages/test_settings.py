"""The settings of people and organizations: what may be changed, by whom, and what the log says about it."""

import csv
import io
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.accounts.login import handle_of
from app.main import create_app
from app.store.db import Pool, open_engine_pool
from app.web.pages.settings import ROUTER
from tests.integration.accounts.world import PASSWORD, Tenant, new_tenant, scope_of
from tests.integration.web.pages.people import HOSTILE, SAME, make_role
from tests.integration.web.post import WITH_MAIL
from tests.integration.web.site import Client, log_in, running, settings_for

NEW = "quite another long sentence"


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    """Give a client of the application, which sends mail."""
    async with running(settings_for(database, **WITH_MAIL)) as client:
        yield client


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool that sees all tenants."""
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()


class Seat:
    """Somebody who is signed in."""

    def __init__(self, client: Client, made: Tenant) -> None:
        self.client, self.made, self.csrf = client, made, ""

    async def sign_in(self) -> "Seat":
        self.csrf = await log_in(self.client, self.made)
        return self

    async def post(self, path: str, **fields: str) -> Any:
        return await self.client.post(f"/settings{path}", data={"csrf_token": self.csrf} | fields, headers=SAME)

    async def get(self, path: str) -> Any:
        return await self.client.get(f"/settings{path}")


@pytest.fixture
async def seat(client: Client, database: str) -> Seat:
    """Give the owner of a new organization."""
    return await Seat(client, await new_tenant(database)).sign_in()


async def joined(pool: Pool, made: Tenant, database: str, role: str) -> Tenant:
    """Give somebody with an organization of their own who is in this one, too, and lands in it."""
    other = await new_tenant(database)
    await pool.execute(
        "insert into memberships (account_id, user_id, role, created_at) values ($1, $2, $3, '2020-01-01')",
        scope_of(made).account_id, UUID(other["user_id"]), role,
    )  # fmt: skip
    return other


async def done(pool: Pool, made: Tenant) -> list[str]:
    rows = await pool.fetch("select action from audit_log where account_id = $1", scope_of(made).account_id)
    return [row["action"] for row in rows]


async def test_preferences_are_kept_and_come_back_with_the_next_sign_in(seat: Seat) -> None:
    saved = await seat.post("/profile", name="  Ann   Lee ", theme="dark", time_zone="local")
    assert saved.status_code == 303
    seat.client.cookies.clear()
    await seat.sign_in()
    page = (await seat.get("/profile")).text
    assert '<html lang="en" data-theme="dark" data-zone="local">' in page
    assert 'value="Ann Lee"' in page
    assert seat.client.cookies.get("keys") == "off"
    await seat.post("/profile", name="", theme="", time_zone="utc", shortcuts="1")
    assert '<html lang="en">' in (await seat.get("/profile")).text
    assert (await seat.post("/profile", name="x" * 101)).status_code == 422


async def test_a_new_password_needs_the_present_one_and_ends_the_other_sessions(seat: Seat, pool: Pool) -> None:
    here = dict(seat.client.cookies)
    await seat.sign_in()
    there = dict(seat.client.cookies)
    seat.client.cookies.clear()
    seat.client.cookies.update(there)
    wrong = await seat.post("/security/password", current="not this one at all", new=NEW)
    assert (wrong.status_code, "This is not your password." in wrong.text) == (422, True)
    weak = await seat.post("/security/password", current=PASSWORD, new="password1234")
    assert weak.status_code == 422
    assert (await seat.post("/security/password", current=PASSWORD, new=NEW)).status_code == 303
    assert (await seat.get("/security")).status_code == 200
    seat.client.cookies.clear()
    seat.client.cookies.update(here)
    assert (await seat.get("/security")).status_code in (303, 401)
    assert "password.changed" in await done(pool, seat.made)
    assert await pool.fetchval("select count(*) from mails where recipient = $1", seat.made["user"]) == 1


async def test_guessing_the_present_password_is_held_back(seat: Seat) -> None:
    for _ in range(5):
        await seat.post("/security/password", current="not this one at all", new=NEW)
    over = await seat.post("/security/password", current=PASSWORD, new=NEW)
    assert (over.status_code, "Too many attempts" in over.text) == (422, True)


async def test_sessions_are_listed_and_end_one_by_one_or_all_at_once(seat: Seat, pool: Pool, database: str) -> None:
    for _ in range(2):
        seat.client.cookies.clear()
        await seat.sign_in()
    handle, _ = re.findall(r"/security/sessions/([0-9a-f]+)/end", (await seat.get("/security")).text)
    assert (await seat.post(f"/security/sessions/{handle}/end")).status_code == 303
    assert (await seat.post(f"/security/sessions/{handle}/end")).status_code == 404
    assert (await seat.post("/security/sessions/end")).status_code == 303
    rows = await pool.fetchval("select count(*) from sessions where user_id = $1", UUID(seat.made["user_id"]))
    assert rows == 1
    assert (await seat.get("/security")).status_code == 200
    # Nobody ends a session of somebody else.
    mine = handle_of(await pool.fetchval("select id_hash from sessions where user_id = $1", UUID(seat.made["user_id"])))
    stranger = await Seat(seat.client, await new_tenant(database)).sign_in()
    assert (await stranger.post(f"/security/sessions/{mine}/end")).status_code == 404
    assert await pool.fetchval("select count(*) from sessions where user_id = $1", UUID(seat.made["user_id"])) == 1


async def test_a_role_counts_at_once_and_a_removed_member_is_out(seat: Seat, pool: Pool, database: str) -> None:
    member = await joined(pool, seat.made, database, "member")
    assert (await seat.post(f"/team/{member['user_id']}/role", role="viewer")).status_code == 303
    role = "select role from memberships where account_id = $1 and user_id = $2"
    keys = scope_of(seat.made).account_id, UUID(member["user_id"])
    assert await pool.fetchval(role, *keys) == "viewer"
    owner = await seat.post(f"/team/{member['user_id']}/role", role="owner")
    assert (owner.status_code, "Enter your password." in owner.text) == (422, True)
    assert (await seat.post(f"/team/{member['user_id']}/role", role="owner", password=PASSWORD)).status_code == 303
    assert await pool.fetchval(role, *keys) == "owner"
    theirs = await Seat(seat.client, member).sign_in()
    assert (await theirs.get("/audit")).status_code == 200
    cookies = dict(seat.client.cookies)
    await seat.sign_in()
    assert (await seat.post(f"/team/{member['user_id']}/remove")).status_code == 303
    seat.client.cookies.clear()
    seat.client.cookies.update(cookies)
    assert (await seat.get("/team")).status_code in (303, 401)
    assert {"member.role_changed", "member.removed"} <= set(await done(pool, seat.made))


async def test_the_last_owner_can_neither_leave_nor_step_down(seat: Seat, pool: Pool) -> None:
    me = seat.made["user_id"]
    for answer in (await seat.post(f"/team/{me}/remove"), await seat.post(f"/team/{me}/role", role="viewer")):
        assert (answer.status_code, "An organization needs an owner" in answer.text) == (422, True)
    count = "select count(*) from memberships where account_id = $1 and role = 'owner'"
    assert await pool.fetchval(count, scope_of(seat.made).account_id) == 1


async def test_an_admin_reaches_no_owner_and_a_member_nobody_but_may_leave(
    seat: Seat, pool: Pool, database: str
) -> None:
    admin = await joined(pool, seat.made, database, "admin")
    member = await joined(pool, seat.made, database, "member")
    owner = seat.made["user_id"]
    as_admin = await Seat(seat.client, admin).sign_in()
    for answer in (
        await as_admin.post(f"/team/{owner}/role", role="viewer"),
        await as_admin.post(f"/team/{owner}/remove"),
        await as_admin.post(f"/team/{admin['user_id']}/role", role="owner", password=PASSWORD),
        await as_admin.post("/team/invitations", email="x@example.com", role="owner"),
    ):
        assert answer.status_code == 422
    as_member = await Seat(seat.client, member).sign_in()
    assert (await as_member.post(f"/team/{owner}/role", role="viewer")).status_code == 403
    assert (await as_member.post(f"/team/{owner}/remove")).status_code == 422
    assert (await as_member.post("/team/invitations", email="x@example.com", role="viewer")).status_code == 403
    for path in ("/api-keys", "/audit", "/audit.csv"):
        assert (await as_member.get(path)).status_code == 403
    assert (await as_member.post(f"/team/{member['user_id']}/remove")).status_code == 303
    rows = await pool.fetch(
        "select role from memberships where account_id = $1 order by role", scope_of(seat.made).account_id
    )
    assert [row["role"] for row in rows] == ["admin", "owner"]


async def test_nobody_is_invited_twice_or_while_they_are_in(seat: Seat) -> None:
    inside = await seat.post("/team/invitations", email=seat.made["user"].upper(), role="viewer")
    assert (inside.status_code, "in the organization already" in inside.text) == (422, True)
    email = f"{uuid4().hex[:10]}@example.com"
    for role in ("viewer", "member"):
        assert (await seat.post("/team/invitations", email=email, role=role)).status_code == 303
    assert (await seat.get("/team")).text.count("Take back the invitation of") == 1
    assert (await seat.post("/team/invitations", email="no address", role="viewer")).status_code == 422


async def test_an_api_key_is_shown_once_asks_for_its_environment_and_ends_at_once(seat: Seat, pool: Pool) -> None:
    made = await seat.post("/api-keys", name="Reports", environment="production", days="30")
    secret = "api-" + made.text.partition(">api-")[2][:48]
    assert made.status_code == 200
    assert secret not in (await seat.get("/api-keys")).text
    stored = await pool.fetchval("select k::text from api_keys k where name = 'Reports'")
    assert secret not in stored
    bearer = {"authorization": f"Bearer {secret}"}
    seat_cookies = dict(seat.client.cookies)
    seat.client.cookies.clear()
    account = (await seat.client.get("/v2/account", headers=bearer)).json()
    assert account["data"]["id"] == seat.made["organization_id"]
    body = {"appname": "x", "url": "http://app.test/x", "functions": []}
    assert (await seat.client.post("/fn/register", json=body, headers=bearer)).status_code == 401
    assert (await seat.client.post(f"/e/{secret}", json={"name": "x"})).status_code == 401
    seat.client.cookies.update(seat_cookies)
    assert "Never used" not in (await seat.get("/api-keys")).text
    await pool.execute("update api_keys set expires_at = clock() - interval '1 second'")
    assert "Expired" in (await seat.get("/api-keys")).text
    key_id = await pool.fetchval("select id from api_keys where account_id = $1", scope_of(seat.made).account_id)
    assert (await seat.post(f"/api-keys/{key_id}/revoke")).status_code == 303
    assert (await seat.post(f"/api-keys/{key_id}/revoke")).status_code == 404
    assert {"api_key.created", "api_key.revoked"} <= set(await done(pool, seat.made))
    assert (await seat.post("/api-keys", name="", environment="production")).status_code == 422
    assert (await seat.post("/api-keys", name="x", environment="nowhere")).status_code == 422


async def test_an_expired_or_revoked_api_key_opens_nothing(seat: Seat, pool: Pool, database: str) -> None:
    made = await seat.post("/api-keys", name="Old", environment="production", days="30")
    secret = "api-" + made.text.partition(">api-")[2][:48]
    await pool.execute("update api_keys set expires_at = clock() - interval '1 second' where name = 'Old'")
    async with running(settings_for(database)) as fresh:
        assert (await fresh.get("/v2/account", headers={"authorization": f"Bearer {secret}"})).status_code == 401
    await pool.execute("update api_keys set expires_at = null, revoked_at = clock() where name = 'Old'")
    async with running(settings_for(database)) as fresh:
        assert (await fresh.get("/v2/account", headers={"authorization": f"Bearer {secret}"})).status_code == 401


async def test_an_organization_is_renamed_and_keeps_its_slug(seat: Seat, pool: Pool) -> None:
    assert (await seat.post("/organization", name="Ann & Daughters")).status_code == 303
    page = (await seat.get("/organization")).text
    assert "Ann &amp; Daughters" in page
    assert seat.made["organization_slug"] in page
    assert (await seat.post("/organization", name="")).status_code == 422
    assert "account.renamed" in await done(pool, seat.made)


async def test_the_log_is_filtered_paged_and_exported_without_formulas(seat: Seat, pool: Pool) -> None:
    account = scope_of(seat.made).account_id
    for n in range(60):
        await pool.execute(
            "insert into audit_log (id, account_id, actor, action, object, at)"
            " values ($1, $2, 'cron', 'thing.done', $3, clock() - make_interval(days => 40, secs => $4))",
            uuid4(), account, f"object {n}", n,
        )  # fmt: skip
    await pool.execute(
        "insert into audit_log (id, account_id, actor, action, object) values ($1, $2, $3, 'odd.done', $4)",
        uuid4(), account, HOSTILE, "=HYPERLINK(1)",
    )  # fmt: skip
    first = (await seat.get("/audit?noun=thing")).text
    assert first.count("thing.done") == 50
    older = first.partition("before=")[2].partition('"')[0]
    assert (await seat.get(f"/audit?noun=thing&before={older}")).text.count("thing.done") == 10
    assert (await seat.get("/audit?actor=CRON")).text.count("thing.done") == 50
    assert "thing.done" not in (await seat.get("/audit?env=production")).text
    assert "object 0" not in (await seat.get("/audit?since=2100-01-01")).text
    assert (await seat.get("/audit?since=yesterday")).status_code == 422
    assert "<script>" not in (await seat.get("/audit?noun=odd")).text
    file = await seat.get("/audit.csv")
    assert file.headers["content-disposition"] == 'attachment; filename="audit-log.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert len([row for row in rows if row["action"] == "thing.done"]) == 60
    assert next(row for row in rows if row["action"] == "odd.done")["object"] == "'=HYPERLINK(1)"
    assert "audit_log.exported" in await done(pool, seat.made)


@pytest.mark.parametrize("path", ["/audit?before=x~y", "/audit?before=2026-01-01~x", "/audit?actor=%00", "/audit?until=9999-12-31"])  # fmt: skip
async def test_odd_questions_to_the_log_are_answered(seat: Seat, path: str) -> None:
    assert (await seat.get(path)).status_code == 200


async def test_every_route_of_the_settings_shows_and_changes_only_ones_own(
    seat: Seat, pool: Pool, database: str
) -> None:
    theirs = await new_tenant(database, organization=f"Contoso {uuid4().hex[:8]}")
    them = await Seat(seat.client, theirs).sign_in()
    await them.post("/team/invitations", email="only-theirs@example.com", role="viewer")
    await them.post("/api-keys", name="only-theirs", environment="production")
    account = scope_of(theirs).account_id
    invitation = await pool.fetchval("select id from invitations where account_id = $1", account)
    key = await pool.fetchval("select id from api_keys where account_id = $1", account)
    handle = (await them.get("/security")).text.partition("sessions/")[2].partition("/")[0] or "x"
    tables = (
        "accounts a where a.id",
        "memberships a where account_id",
        "invitations a where account_id",
        "api_keys a where account_id",
    )
    before = [await pool.fetch(f"select a::text from {table} = $1", account) for table in tables]
    await seat.sign_in()
    values = {
        "org": theirs["organization_slug"], "user_id": theirs["user_id"], "invitation_id": str(invitation),
        "key_id": str(key), "handle": handle, "provider": "nobody-has-this",
    }  # fmt: skip
    walked = 0
    for route in ROUTER.routes:
        for method in route.methods & {"GET", "POST"}:
            path = "/".join(values[p[1:].partition(":")[0]] if p[:1] == "{" else p for p in route.path.split("/"))
            if method == "GET":
                answer = await seat.client.get(path)
            else:
                fields = {"csrf_token": seat.csrf, "role": "viewer", "email": "", "name": "", "current": "", "new": ""}
                answer = await seat.client.post(path, data=fields, headers=SAME)
                if "{" in route.path:
                    assert answer.status_code in (404, 422), path
            assert "only-theirs" not in answer.text, path
            assert theirs["organization"] not in answer.text, path
            walked += 1
    assert walked >= 18
    assert [await pool.fetch(f"select a::text from {table} = $1", account) for table in tables] == before


@pytest.mark.parametrize("role", ["viewer", "member"])
async def test_lesser_roles_see_their_own_pages_and_the_team_without_buttons(seat: Seat, pool: Pool, role: str) -> None:
    await make_role(pool, seat.made, role)
    for path in ("/profile", "/security", "/team", "/organization"):
        assert (await seat.get(path)).status_code == 200
    assert "Invite</button>" not in (await seat.get("/team")).text
    assert (await seat.post("/organization", name="Mine now")).status_code == 403


async def test_in_dev_there_is_a_profile_and_a_log_and_nothing_about_signing_in(database: str) -> None:
    async with running(settings_for(database, STEPWELL_MODE="dev", STEPWELL_DISCOVERY="0")) as client:
        for path, status in (("profile", 200), ("audit", 200), ("security", 404), ("team", 404), ("api-keys", 404)):
            assert (await client.get(f"/settings/{path}")).status_code == status, path


def test_the_application_has_the_settings(database: str) -> None:
    paths = {route.path for route in create_app(settings_for(database)).routes}
    assert {"/settings/team", "/settings/audit.csv", "/reset", "/invite/{token:str}"} <= paths
