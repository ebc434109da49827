"""Links that come by mail: reset a password, prove an address, join an organization."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.store.db import Pool
from tests.integration.accounts.world import PASSWORD, new_tenant, scope_of
from tests.integration.web.post import WITH_MAIL, letters_to, link_to
from tests.integration.web.site import Client, log_in, running, settings_for

NEW = "quite another long sentence"


@pytest.fixture
async def client(database: str, engine_pool: Pool) -> AsyncIterator[Client]:
    """Give a client of an installation with mail and an open door, and no memory of earlier attempts."""
    await engine_pool.execute("delete from login_attempts")
    async with running(settings_for(database, **WITH_MAIL, STEPWELL_SIGN_UP="open")) as client:
        yield client


async def signs_in(client: Client, email: str, password: str) -> bool:
    client.cookies.clear()
    answer = await client.post("/login", data={"email": email, "password": password})
    return answer.status_code == 303


async def counts(pool: Pool) -> list[int]:
    """How many rows a request writes shows in how many there are."""
    return [await pool.fetchval(f"select count(*) from {table}") for table in ("mails", "link_tokens")]


async def test_a_forgotten_password_is_replaced_once_and_everybody_is_signed_out(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    await log_in(client, made)
    old_cookie = dict(client.cookies)
    client.cookies.clear()
    assert "Look at your mail" in (await client.post("/reset", data={"email": made["user"].upper()})).text
    link = await link_to(engine_pool, made["user"], "reset")
    page = await client.get(link)
    assert (page.status_code, page.headers["referrer-policy"]) == (200, "same-origin")
    assert made["user"] in page.text
    too_short = await client.post(link, data={"password": "short"})
    assert (too_short.status_code, "at least 12" in too_short.text) == (422, True)
    done = await client.post(link, data={"password": NEW})
    assert (done.status_code, done.headers["location"]) == (303, "/login?done=reset")
    for again in (await client.get(link), await client.post(link, data={"password": PASSWORD})):
        assert (again.status_code, "This link is over" in again.text) == (410, True)
    client.cookies.clear()
    client.cookies.update(old_cookie)
    assert (await client.get("/whoami")).status_code in (303, 401)
    assert not await signs_in(client, made["user"], made["password"])
    assert await signs_in(client, made["user"], NEW)
    assert "was changed" in (await letters_to(engine_pool, made["user"]))[-1].subject
    actions = await engine_pool.fetch(
        "select action from audit_log where account_id = $1 order by at", scope_of(made).account_id
    )
    assert {"password.reset_asked", "password.reset"} <= {row["action"] for row in actions}


async def test_nobody_learns_from_the_reset_which_addresses_are_known(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    stranger = f"{uuid4().hex[:10]}@example.com"
    answers, written = [], []
    for email in (made["user"], stranger):
        before = await counts(engine_pool)
        answer = await client.post("/reset", data={"email": email})
        answers.append((answer.status_code, answer.text.replace(email, "")))
        after = await counts(engine_pool)
        written.append([b - a for a, b in zip(before, after, strict=True)])
    assert answers[0] == answers[1]
    assert written[0] == written[1] == [1, 1]
    assert await letters_to(engine_pool, stranger) == []
    assert len(await letters_to(engine_pool, made["user"])) == 1


async def test_letters_to_one_address_are_bounded_without_a_word(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    answers = [(await client.post("/reset", data={"email": made["user"]})).status_code for _ in range(5)]
    assert answers == [200] * 5
    assert len(await letters_to(engine_pool, made["user"])) == 3
    for _ in range(5):
        await client.post("/reset", data={"email": f"{uuid4().hex}@example.com"})
    over = await client.post("/reset", data={"email": f"{uuid4().hex}@example.com"})
    assert (over.status_code, int(over.headers["retry-after"]) > 0) == (429, True)


async def test_an_expired_link_opens_nothing(client: Client, database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    await client.post("/reset", data={"email": made["user"]})
    link = await link_to(engine_pool, made["user"], "reset")
    await engine_pool.execute("update link_tokens set expires_at = expires_at - interval '61 minutes'")
    assert (await client.get(link)).status_code == 410
    assert (await client.post(link, data={"password": NEW})).status_code == 410
    assert await signs_in(client, made["user"], made["password"])


async def test_of_two_who_follow_a_link_at_once_one_gets_it(client: Client, database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    await client.post("/reset", data={"email": made["user"]})
    link = await link_to(engine_pool, made["user"], "reset")
    answers = await asyncio.gather(*(client.post(link, data={"password": f"{NEW} {n}"}) for n in range(3)))
    assert sorted(answer.status_code for answer in answers) == [303, 410, 410]


async def test_no_link_is_stored_as_it_is(client: Client, database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    await client.post("/reset", data={"email": made["user"]})
    token = (await link_to(engine_pool, made["user"], "reset")).rpartition("/")[2]
    for table in ("mails", "link_tokens", "audit_log"):
        rows = await engine_pool.fetch(f"select t::text as row from {table} t")
        assert not any(token in row["row"] or token.encode().hex() in row["row"] for row in rows)


async def test_without_mail_the_page_says_who_can_help(database: str, engine_pool: Pool) -> None:
    async with running(settings_for(database)) as client:
        made = await new_tenant(database)
        for answer in (await client.get("/reset"), await client.post("/reset", data={"email": made["user"]})):
            assert "stepwell bootstrap --email" in answer.text
        assert await letters_to(engine_pool, made["user"]) == []


async def test_with_mail_an_open_sign_up_makes_nothing_before_the_address_is_proven(
    client: Client, engine_pool: Pool
) -> None:
    email = f"{uuid4().hex[:10]}@example.com"
    form = {"email": email, "password": PASSWORD, "organization": "Ann & Sons"}
    answer = await client.post("/sign-up", data=form)
    assert (answer.status_code, "Look at your mail" in answer.text) == (200, True)
    assert "set-cookie" not in answer.headers
    assert not await signs_in(client, email, PASSWORD)
    link = await link_to(engine_pool, email, "verify")
    assert email in (await client.get(link)).text
    assert not await signs_in(client, email, PASSWORD), "looking at a link makes nothing"
    done = await client.post(link)
    assert (done.status_code, done.headers["location"]) == (303, "/env/production/start")
    assert (await client.get("/whoami")).json()["role"] == "owner"
    assert (await client.post(link)).status_code == 410
    assert await signs_in(client, email, PASSWORD)


async def test_with_mail_a_sign_up_answers_the_same_for_known_and_new_addresses(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    stranger = f"{uuid4().hex[:10]}@example.com"
    answers = []
    for email in (made["user"], stranger):
        form = {"email": email, "password": made["password"], "organization": "Ann & Sons"}
        answer = await client.post("/sign-up", data=form)
        answers.append((answer.status_code, "set-cookie" in answer.headers, answer.text.replace(email, "")))
    assert answers[0] == answers[1]
    assert [letter.subject for letter in await letters_to(engine_pool, made["user"])] == [
        "You have an account already · Stepwell"
    ]


async def test_a_teammate_joins_as_a_new_person(client: Client, database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    csrf = await log_in(client, made)
    email = f"{uuid4().hex[:10]}@example.com"
    sent = await client.post("/settings/team/invitations", data={"csrf_token": csrf, "email": email, "role": "member"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/settings/team?done=invited")
    assert email in (await client.get("/settings/team")).text
    link = await link_to(engine_pool, email, "invite")
    client.cookies.clear()
    page = await client.get(link)
    assert made["organization"] in page.text
    assert (await client.post(link, data={"password": "short"})).status_code == 422
    done = await client.post(link, data={"password": NEW, "name": "Bob"})
    assert done.status_code == 303
    who = (await client.get("/whoami")).json()
    assert (who["email"], who["role"], who["account"]) == (email, "member", made["organization_id"])
    assert (await client.get(link)).status_code == 410


async def test_an_invited_address_that_has_an_account_joins_only_by_its_own_session(
    client: Client, database: str, engine_pool: Pool
) -> None:
    inviting, invited = await new_tenant(database), await new_tenant(database)
    csrf = await log_in(client, inviting)
    fields = {"csrf_token": csrf, "email": invited["user"], "role": "admin"}
    await client.post("/settings/team/invitations", data=fields)
    link = await link_to(engine_pool, invited["user"], "invite")
    # The inviter is still signed in, and a stranger brings a password: neither joins as the invited person.
    assert "Sign out" in (await client.get(link)).text
    await client.post(link, data={"csrf_token": csrf})
    client.cookies.clear()
    await client.post(link, data={"password": NEW})
    members = "select count(*) from memberships where account_id = $1"
    assert await engine_pool.fetchval(members, scope_of(inviting).account_id) == 1
    assert await signs_in(client, invited["user"], invited["password"])
    await client.post(link)
    who = (await client.get("/whoami")).json()
    assert (who["account"], who["role"]) == (inviting["organization_id"], "admin")
    # And back to their own organization, under a new session id.
    before = dict(client.cookies)
    csrf = who["csrf_token"]
    slug = invited["organization_slug"]
    await client.post(f"/settings/organizations/{slug}/open", data={"csrf_token": csrf})
    assert dict(client.cookies) != before
    assert (await client.get("/whoami")).json()["account"] == invited["organization_id"]
    theirs = (await new_tenant(database))["organization_slug"]
    csrf = (await client.get("/whoami")).json()["csrf_token"]
    assert (await client.post(f"/settings/organizations/{theirs}/open", data={"csrf_token": csrf})).status_code == 404


async def test_an_invitation_taken_back_opens_nothing(client: Client, database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    csrf = await log_in(client, made)
    email = f"{uuid4().hex[:10]}@example.com"
    await client.post("/settings/team/invitations", data={"csrf_token": csrf, "email": email, "role": "viewer"})
    link = await link_to(engine_pool, email, "invite")
    row = await engine_pool.fetchval("select id from invitations where email = $1", email)
    await client.post(f"/settings/team/invitations/{row}/revoke", data={"csrf_token": csrf})
    client.cookies.clear()
    assert (await client.post(link, data={"password": NEW})).status_code == 410


async def test_without_mail_an_invitation_is_a_link_to_hand_over(database: str) -> None:
    async with running(settings_for(database)) as client:
        made = await new_tenant(database)
        csrf = await log_in(client, made)
        email = f"{uuid4().hex[:10]}@example.com"
        fields = {"csrf_token": csrf, "email": email, "role": "viewer"}
        answer = await client.post("/settings/team/invitations", data=fields)
        link = answer.text.partition(made["base_url"])[2].partition("<")[0]
        assert link.startswith("/invite/")
        assert link not in (await client.get("/settings/team")).text, "it is shown once"
        client.cookies.clear()
        assert (await client.post(link, data={"password": NEW})).status_code == 303


@pytest.mark.parametrize("path", ["/reset/x", "/verify/x", "/invite/x", "/reset/%00", "/invite/" + "a" * 5000])
async def test_a_link_that_never_was_is_over(client: Client, path: str) -> None:
    assert (await client.get(path)).status_code == 410
    assert (await client.post(path, data={"password": NEW})).status_code == 410


@pytest.mark.parametrize("path", ["/reset", "/reset/x", "/verify/x", "/invite/x"])
async def test_forms_from_other_sites_are_refused(client: Client, path: str) -> None:
    answer = await client.post(path, data={"email": "a@b.c"}, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
