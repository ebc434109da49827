"""Login through providers in a browser's eyes: who gets in, who does not, and by which code they are told."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio
from joserfc import jwk

from app.accounts import providers
from app.adapters import oauth
from app.cli.checks import Verdict, check_providers
from app.store import identities
from app.store.db import Pool, open_engine_pool
from tests.integration.accounts.world import Tenant, new_tenant
from tests.integration.web.post import WITH_MAIL, letters_to
from tests.integration.web.site import Client, log_in, running, settings_for
from tests.providers.rogue import CLIENT, SECRET, Rogue, new_key, running_rogue, somebody

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "a long walk by the sea"


@pytest.fixture(scope="module")
def served() -> Iterator[Rogue]:
    """Give a provider that runs."""
    with running_rogue() as rogue:
        yield rogue


@pytest.fixture
def rogue(served: Rogue) -> Rogue:
    """Give the provider as it was new, with somebody nobody knows behind it."""
    fresh = Rogue(served.url, key=served.key, person=somebody())
    served.__dict__.update(fresh.__dict__)
    return served


def providers_at(rogue: Rogue) -> str:
    """The setting: the provider by OpenID, and as a GitHub of one's own."""
    entry = {"issuer": rogue.url, "client_id": CLIENT, "client_secret": SECRET, "label": "Acme"}
    # The issuers must differ; this one leads to the same server.
    github = {**entry, "issuer": rogue.url.replace("127.0.0.1", "localhost"), "kind": "github", "label": "GitHub"}
    return json.dumps([entry, github])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine_pool(database: str) -> AsyncIterator[Pool]:
    """Give a pool that sees all tenants."""
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_house(database: str, served: Rogue) -> AsyncIterator[Client]:
    """Run an installation with an open door, mail and two providers."""
    settings = settings_for(
        database, **WITH_MAIL, STEPWELL_SIGN_UP="open", STEPWELL_LOGIN_PROVIDERS=providers_at(served)
    )
    async with running(settings) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def client(open_house: Client, rogue: Rogue, engine_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Give a client of it in a browser without cookies; nothing is remembered of the provider."""
    await engine_pool.execute("delete from login_attempts")
    monkeypatch.setattr(oauth, "FRESH_S", -1.0)
    monkeypatch.setattr(oauth, "ALONE_S", 0.0)
    open_house.cookies.clear()
    return open_house


@pytest_asyncio.fixture(loop_scope="module")
async def closed(database: str, rogue: Rogue) -> AsyncIterator[Client]:
    """Give a client of an installation that people join by invitation."""
    settings = settings_for(database, STEPWELL_SIGN_UP="closed", STEPWELL_LOGIN_PROVIDERS=providers_at(rogue))
    async with running(settings) as client:
        yield client


async def leave(client: Client, rogue: Rogue, path: str = "/login/acme", **form: str) -> dict[str, str]:
    """Go to the provider; gives the query of its address."""
    answer = await client.post(path, data=form)
    assert answer.status_code == 200, answer.text
    url = answer.headers["refresh"].partition("url=")[2]
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    rogue.nonce = query.get("nonce", "")
    return query


async def back(client: Client, state: str, key: str = "acme", **more: str) -> Any:
    """Come back from the provider."""
    query = {"state": state, "code": uuid4().hex} | more
    return await client.get(f"/login/{key}/callback", params=query)


async def through(client: Client, rogue: Rogue, path: str = "/login/acme", **form: str) -> Any:
    """Go to the provider and come back."""
    return await back(client, (await leave(client, rogue, path, **form))["state"])


async def signed_up(client: Client, rogue: Rogue) -> str:
    """Make an account through the provider; gives the CSRF token of the session."""
    client.cookies.clear()
    asked = await through(client, rogue)
    assert asked.status_code == 303, asked.text
    done = await client.post(asked.headers["location"], data={"organization": "Ada & Sons"})
    assert (done.status_code, done.headers["location"]) == (303, "/env/production/start"), done.text
    token: str = (await client.get("/whoami")).json()["csrf_token"]
    return token


def code_of(answer: Any) -> str:
    """The code on the page that says what went wrong."""
    found = re.search(r'<span class="mono">(\w+)</span>', answer.text)
    assert found is not None, answer.text
    return found[1]


async def actions(pool: Pool, user: str) -> list[str]:
    """What the audit log knows a person did, by their address."""
    rows = await pool.fetch("select action from audit_log where actor = $1 order by at, action", user)
    return [row["action"] for row in rows]


async def test_somebody_new_signs_up_signs_out_and_signs_in_again(
    client: Client, rogue: Rogue, engine_pool: Pool
) -> None:
    await signed_up(client, rogue)
    who = (await client.get("/whoami")).json()
    assert (who["email"], who["role"]) == (rogue.person["email"], "owner")
    session = client.cookies["stepwell"]
    client.cookies.clear()
    # The address may change at the provider: the identity is issuer and subject.
    rogue.person = rogue.person | {"email": "moved@example.com"}
    answer = await through(client, rogue, next="/env/production/runs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/env/production/runs")
    assert (await client.get("/whoami")).json()["email"] == who["email"]
    assert client.cookies["stepwell"] != session
    noted = await actions(engine_pool, who["email"])
    assert noted.count("session.started") == 2
    assert noted.count("identity.linked") == 1


async def test_the_way_out_carries_pkce_state_and_nonce_and_the_way_back_the_verifier(
    client: Client, rogue: Rogue
) -> None:
    query = await leave(client, rogue)
    assert query["redirect_uri"] == "http://127.0.0.1:8288/login/acme/callback"
    assert (query["response_type"], query["code_challenge_method"], query["client_id"]) == ("code", "S256", CLIENT)
    assert set(query["scope"].split()) == {"openid", "email", "profile"}
    assert len({query["state"], query["nonce"], query["code_challenge"]}) == 3
    await back(client, query["state"])
    sent = next(sent for path, sent in rogue.asked if path == "/token")
    assert sent["redirect_uri"] == query["redirect_uri"]
    assert len(sent["code_verifier"]) >= 43
    assert sent["authorization"].startswith("Basic ")


async def test_a_browser_goes_on_by_itself_and_no_form_leads_elsewhere(client: Client, rogue: Rogue) -> None:
    answer = await client.post("/login/acme", data={})
    assert answer.headers["refresh"].startswith(f"0; url={rogue.url}/authorize?")
    cookie = answer.headers["set-cookie"].lower()
    assert "stepwell-journey=" in cookie
    assert {"httponly", "samesite=lax", "path=/", "max-age=600"} <= set(cookie.split("; "))
    assert "form-action 'self'" in answer.headers["content-security-policy"]
    assert SECRET not in answer.text
    refused = await client.post("/login/acme", data={}, headers={"sec-fetch-site": "cross-site"})
    assert refused.status_code == 403


#: What goes wrong at the provider, by name: what it says, and the code people are shown.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another nonce": ({"claims": {"nonce": "planted"}}, "nonce_invalid"),
    "no nonce": ({"claims": {"nonce": None}}, "nonce_invalid"),
    "another audience": ({"claims": {"aud": "somebody-else"}}, "token_invalid"),
    "two audiences, made for the other": ({"claims": {"aud": [CLIENT, "b"], "azp": "b"}}, "token_invalid"),
    "two audiences, made for nobody": ({"claims": {"aud": [CLIENT, "b"]}}, "token_invalid"),
    "no audience": ({"claims": {"aud": None}}, "token_invalid"),
    "another issuer": ({"claims": {"iss": "https://accounts.google.com"}}, "issuer_invalid"),
    "expired": ({"claims": {"exp": 1_700_000_000}}, "token_invalid"),
    "no end": ({"claims": {"exp": None}}, "token_invalid"),
    "an end that is text": ({"claims": {"exp": "9999999999"}}, "token_invalid"),
    "of tomorrow": ({"claims": {"iat": 4_000_000_000}}, "token_invalid"),
    "no subject": ({"claims": {"sub": None}}, "token_invalid"),
    "a subject that is a number": ({"claims": {"sub": 7}}, "token_invalid"),
    "an endless subject": ({"claims": {"sub": "x" * 300}}, "token_invalid"),
    "not signed": ({"signs": "none"}, "token_invalid"),
    "not signed, with a key id": ({"signs": "none", "header": {"kid": "first"}}, "token_invalid"),
    "signed with a key that is not published": ({"signs": new_key("first")}, "token_invalid"),
    "a token that is no token": ({"broken": {"/token": (200, b'{"id_token": "a.b.c"}')}}, "token_invalid"),
    "no id_token": ({"broken": {"/token": (200, b'{"access_token": "x"}')}}, "token_invalid"),
    "an error": ({"broken": {"/token": (400, b'{"error": "invalid_client"}')}}, "provider_refused"),
    "a list for a token": ({"broken": {"/token": (200, b"[]")}}, "provider_refused"),
    "a page for a token": ({"broken": {"/token": (502, b"<html>")}}, "provider_down"),
    "an endless token": ({"broken": {"/token": (200, b" " * (oauth.MOST_BYTES + 1))}}, "provider_down"),
    "an address nobody has confirmed": ({"claims": {"email_verified": False}}, "email_unverified"),
    "an address of which nothing is said": ({"claims": {"email_verified": None}}, "email_unverified"),
    "an address that is none": ({"claims": {"email": "ada"}}, "email_unverified"),
    "another person's profile": (
        {"claims": {"email": None}, "userinfo": {"sub": "other", "email": "a@example.com", "email_verified": True}},
        "token_invalid",
    ),
}


async def test_an_answer_that_is_wrong_in_one_thing_signs_nobody_in(client: Client, rogue: Rogue) -> None:
    person = rogue.person
    found = {}
    for name, (wrong, _) in WRONG.items():
        fresh = Rogue(rogue.url, key=rogue.key, person=person)
        rogue.__dict__.update(fresh.__dict__)
        state = (await leave(client, rogue))["state"]
        rogue.__dict__.update(wrong)
        answer = await back(client, state)
        assert 400 <= answer.status_code < 600, name
        assert "stepwell=" not in answer.headers.get("set-cookie", ""), name
        assert SECRET not in answer.text
        found[name] = code_of(answer)
    assert found == {name: code for name, (_, code) in WRONG.items()}


async def test_a_secret_of_ours_cannot_pass_for_a_key_of_theirs(client: Client, rogue: Rogue) -> None:
    rogue.signs = jwk.OctKey.import_key(SECRET)
    rogue.header = {"alg": "HS256", "kid": "first"}
    assert code_of(await through(client, rogue)) == "token_invalid"


async def test_a_return_counts_once_and_only_in_the_browser_that_left(client: Client, rogue: Rogue) -> None:
    state = (await leave(client, rogue))["state"]
    cookies = dict(client.cookies)
    client.cookies.clear()
    assert code_of(await back(client, state)) == "state_invalid"
    client.cookies.update(cookies)
    assert code_of(await back(client, state, key="github")) == "state_invalid"
    state = (await leave(client, rogue))["state"]
    code = uuid4().hex
    assert (await back(client, state, code=code)).status_code == 303
    assert code_of(await back(client, state, code=code)) == "state_invalid"
    assert code_of(await back(client, "made up")) == "state_invalid"
    again = (await leave(client, rogue))["state"]
    assert code_of(await back(client, again, code=code)) == "provider_refused"


async def test_a_return_that_took_too_long_is_over(client: Client, rogue: Rogue, engine_pool: Pool) -> None:
    state = (await leave(client, rogue))["state"]
    await engine_pool.execute("update journeys set expires_at = clock() - interval '1 second'")
    assert code_of(await back(client, state)) == "state_invalid"
    assert rogue.count("/token") == 0


async def test_two_tabs_can_be_away_at_once(client: Client, rogue: Rogue) -> None:
    first, second = await leave(client, rogue), await leave(client, rogue)
    rogue.nonce = first["nonce"]
    assert (await back(client, first["state"])).status_code == 303
    rogue.nonce = second["nonce"]
    assert (await back(client, second["state"])).status_code == 303


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"error": "access_denied", "code": ""}, "consent_denied"),
        ({"error": "server_error", "code": ""}, "provider_refused"),
        ({"code": ""}, "provider_refused"),
        ({"iss": "https://accounts.google.com"}, "issuer_invalid"),
    ],
)
async def test_a_return_without_a_good_code_is_told_apart(
    client: Client, rogue: Rogue, more: dict[str, str], code: str
) -> None:
    state = (await leave(client, rogue))["state"]
    assert code_of(await back(client, state, **more)) == code


async def test_a_provider_that_names_itself_in_returns_must_do_so(client: Client, rogue: Rogue) -> None:
    rogue.metadata = {"authorization_response_iss_parameter_supported": True}
    assert code_of(await through(client, rogue)) == "issuer_invalid"
    state = (await leave(client, rogue))["state"]
    assert (await back(client, state, iss=rogue.url)).status_code == 303


@pytest.mark.parametrize(
    ("path", "answer", "code"),
    [
        ("/.well-known/openid-configuration", (503, b""), "provider_down"),
        ("/.well-known/openid-configuration", (200, b"<html>"), "provider_down"),
        ("/.well-known/openid-configuration", (200, b"{}"), "provider_down"),
        ("/.well-known/openid-configuration", (200, b" " * (oauth.MOST_BYTES + 1)), "provider_down"),
    ],
)
async def test_a_provider_that_is_down_stops_nobody_with_a_password(
    client: Client, rogue: Rogue, database: str, path: str, answer: tuple[int, bytes], code: str
) -> None:
    rogue.broken = {path: answer}
    away = await client.post("/login/acme", data={})
    assert (away.status_code, code_of(away)) == (503, code)
    assert int(away.headers["retry-after"]) > 0
    page = await client.get("/login")
    assert "Continue with Acme" in page.text
    await log_in(client, await new_tenant(database))


async def test_a_provider_that_calls_itself_otherwise_is_not_believed(client: Client, rogue: Rogue) -> None:
    rogue.metadata = {"issuer": "https://accounts.google.com"}
    assert code_of(await client.post("/login/acme", data={})) == "issuer_invalid"


async def test_a_provider_cannot_lead_us_to_other_addresses_than_its_kind(client: Client, rogue: Rogue) -> None:
    rogue.metadata = {"token_endpoint": "http://metadata.example/token"}
    assert code_of(await client.post("/login/acme", data={})) == "provider_down"


async def test_keys_that_change_are_fetched_anew_once(
    client: Client, rogue: Rogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await signed_up(client, rogue)
    monkeypatch.setattr(oauth, "ROTATION_S", 0.0)
    monkeypatch.setattr(oauth, "FRESH_S", 3600.0)
    rogue.asked.clear()
    assert (await through(client, rogue)).headers["location"] == "/"
    assert rogue.count("/keys") == 0
    rogue.published = [rogue.key, new_key("second")]
    rogue.signs = rogue.published[1]
    assert (await through(client, rogue)).headers["location"] == "/"
    assert rogue.count("/keys") == 1
    rogue.signs = new_key("third")
    assert code_of(await through(client, rogue)) == "token_invalid"
    assert rogue.count("/keys") == 2
    assert rogue.count("/.well-known/openid-configuration") == 0


async def test_an_address_that_is_only_in_the_profile_is_read_there(client: Client, rogue: Rogue) -> None:
    person, rogue.person = rogue.person, {"sub": rogue.person["sub"]}
    rogue.userinfo = person
    await signed_up(client, rogue)
    assert (await client.get("/whoami")).json()["email"] == person["email"]


async def test_the_address_of_an_account_does_not_open_it(client: Client, rogue: Rogue, database: str) -> None:
    made = await new_tenant(database)
    rogue.person["email"] = made["user"].upper()
    answer = await through(client, rogue)
    assert (answer.status_code, code_of(answer)) == (409, "account_exists")
    assert "/login?next=/settings/security" in answer.text
    # Who knows the password connects it, and then it opens.
    token = await log_in(client, made)
    connect = "/settings/security/methods/acme/connect"
    refused = await client.post(connect, data={"csrf_token": token, "password": "not it"})
    assert (refused.status_code, "This is not your password." in refused.text) == (422, True)
    done = await through(client, rogue, connect, csrf_token=token, password=made["password"])
    assert done.headers["location"] == "/settings/security?done=connected"
    client.cookies.clear()
    assert (await through(client, rogue)).headers["location"] == "/"
    assert (await client.get("/whoami")).json()["email"] == made["user"]


async def test_connecting_takes_the_forms_token_and_the_session_that_began_it(
    client: Client, rogue: Rogue, database: str
) -> None:
    made, other = await new_tenant(database), await new_tenant(database)
    token = await log_in(client, made)
    connect = "/settings/security/methods/acme/connect"
    assert (await client.post(connect, data={"password": made["password"]})).status_code == 403
    state = (await leave(client, rogue, connect, csrf_token=token, password=made["password"]))["state"]
    journey = client.cookies["stepwell-journey"]
    await log_in(client, other)
    client.cookies.set("stepwell-journey", journey)
    assert code_of(await back(client, state)) == "state_invalid"


async def test_an_identity_of_somebody_else_cannot_be_taken(
    client: Client, rogue: Rogue, database: str, engine_pool: Pool
) -> None:
    await signed_up(client, rogue)
    made = await new_tenant(database)
    token = await log_in(client, made)
    form = {"csrf_token": token, "password": made["password"]}
    connect = "/settings/security/methods/acme/connect"
    taken = await through(client, rogue, connect, **form)
    assert (taken.status_code, code_of(taken)) == (409, "linked_elsewhere")
    rogue.person = somebody()
    assert (await through(client, rogue, connect, **form)).status_code == 303
    assert (await through(client, rogue, connect, **form)).status_code == 303  # Again is fine.
    rogue.person = somebody()
    assert code_of(await through(client, rogue, connect, **form)) == "already_connected"
    gone = await client.post("/settings/security/methods/acme/disconnect", data=form)
    assert gone.headers["location"] == "/settings/security?done=disconnected"
    assert [letter.subject for letter in await letters_to(engine_pool, made["user"])][-2:] == [
        "A sign-in method was connected · Stepwell",
        "A sign-in method was disconnected · Stepwell",
    ]
    assert {"identity.linked", "identity.unlinked"} <= set(await actions(engine_pool, made["user"]))


async def test_without_a_password_a_fresh_login_at_the_provider_proves_who_one_is(
    client: Client, rogue: Rogue, engine_pool: Pool
) -> None:
    token = await signed_up(client, rogue)
    disconnect = "/settings/security/methods/acme/disconnect"
    page = await client.get("/settings/security")
    assert "Confirm with Acme" in page.text
    refused = await client.post(disconnect, data={"csrf_token": token})
    assert (refused.status_code, "has no password" in refused.text) == (422, True)
    prove = "/settings/security/methods/acme/prove"
    query = await leave(client, rogue, prove, csrf_token=token)
    assert (query["prompt"], query["max_age"]) == ("login", "0")
    assert code_of(await back(client, query["state"])) == "not_proven_anew"
    state = (await leave(client, rogue, prove, csrf_token=token))["state"]
    rogue.claims = {"auth_time": 1_700_000_000}
    assert code_of(await back(client, state)) == "not_proven_anew"
    rogue.claims = {"auth_time": int(time.time())}
    person, rogue.person = rogue.person, somebody()
    assert code_of(await through(client, rogue, prove, csrf_token=token)) == "other_person"
    rogue.person = person
    session = client.cookies["stepwell"]
    done = await through(client, rogue, prove, csrf_token=token)
    assert done.headers["location"] == "/settings/security?done=proven"
    assert client.cookies["stepwell"] != session
    token = (await client.get("/whoami")).json()["csrf_token"]
    # Proven, but the only way in stays.
    kept = await client.post(disconnect, data={"csrf_token": token})
    assert (kept.status_code, "only way in" in kept.text) == (422, True)
    chosen = await client.post("/settings/security/password", data={"csrf_token": token, "new": PASSWORD})
    assert chosen.headers["location"] == "/settings/security?done=password"
    gone = await client.post(disconnect, data={"csrf_token": token, "password": PASSWORD})
    assert gone.headers["location"] == "/settings/security?done=disconnected"
    client.cookies.clear()
    assert (await client.post("/login", data={"email": person["email"], "password": PASSWORD})).status_code == 303
    assert "session.proven" in await actions(engine_pool, person["email"])


async def test_a_proof_wears_off(client: Client, rogue: Rogue, engine_pool: Pool) -> None:
    token = await signed_up(client, rogue)
    rogue.claims = {"auth_time": int(time.time())}
    await through(client, rogue, "/settings/security/methods/acme/prove", csrf_token=token)
    token = (await client.get("/whoami")).json()["csrf_token"]
    await engine_pool.execute("update sessions set proven_at = proven_at - interval '11 minutes'")
    refused = await client.post("/settings/security/password", data={"csrf_token": token, "new": PASSWORD})
    assert (refused.status_code, "has no password" in refused.text) == (422, True)


async def invited(pool: Pool, client: Client, made: Tenant, email: str) -> str:
    """Invite somebody; gives the token of the link."""
    token = await log_in(client, made)
    page = await client.post("/settings/team/invitations", data={"csrf_token": token, "email": email, "role": "member"})
    found = re.search(r"/invite/([\w-]+)", page.text)
    assert found is not None, page.text
    client.cookies.clear()
    return found[1]


async def test_an_invitation_is_accepted_through_a_provider_where_sign_up_is_closed(
    closed: Client, rogue: Rogue, database: str, engine_pool: Pool
) -> None:
    made = await new_tenant(database)
    answer = await through(closed, rogue)
    assert (answer.status_code, code_of(answer)) == (403, "sign_up_closed")
    link = await invited(engine_pool, closed, made, rogue.person["email"].upper())
    assert "Join with Acme" in (await closed.get(f"/invite/{link}")).text
    person, rogue.person = rogue.person, somebody()
    assert code_of(await through(closed, rogue, invitation=link)) == "invitation_for_other"
    rogue.person = person | {"email_verified": False}
    assert code_of(await through(closed, rogue, invitation=link)) == "email_unverified"
    rogue.person = person
    assert (await through(closed, rogue, invitation=link)).headers["location"] == "/"
    who = (await closed.get("/whoami")).json()
    assert (who["account"], who["role"]) == (made["organization_id"], "member")
    closed.cookies.clear()
    rogue.person = somebody()
    assert code_of(await through(closed, rogue, invitation=link)) == "invitation_over"


async def test_somebody_known_is_led_to_their_invitation(client: Client, rogue: Rogue, database: str) -> None:
    await signed_up(client, rogue)
    client.cookies.clear()
    assert (await through(client, rogue, invitation="nothing")).headers["location"] == "/invite/nothing"


async def test_the_door_closes_while_somebody_thinks_of_a_name(
    client: Client, rogue: Rogue, engine_pool: Pool, database: str
) -> None:
    asked = (await through(client, rogue)).headers["location"]
    nameless = await client.post(asked, data={"organization": " "})
    assert (nameless.status_code, "Enter the name" in nameless.text) == (422, True)
    assert rogue.person["email"] in nameless.text
    cookies = dict(client.cookies)
    client.cookies.clear()
    assert (await client.get(asked)).status_code == 410
    client.cookies.update(cookies)
    # Somebody makes an account with the address meanwhile.
    await engine_pool.execute(
        "insert into users (id, email, verified_at) values ($1, $2, clock())", uuid4(), rogue.person["email"]
    )
    late = await client.post(asked, data={"organization": "Late"})
    assert (late.status_code, code_of(late)) == (409, "account_exists")


async def test_of_two_forms_sent_at_once_one_makes_the_account(client: Client, rogue: Rogue) -> None:
    asked = (await through(client, rogue)).headers["location"]
    answers = await asyncio.gather(*(client.post(asked, data={"organization": "Twice"}) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [303, 410, 410]


async def test_github_gives_its_number_and_a_confirmed_address(client: Client, rogue: Rogue) -> None:
    word = uuid4().hex[:10]
    rogue.person = {"id": int(uuid4()) % 10**9, "login": "ada", "name": "Ada", "email": "public@example.com"}
    rogue.emails = [
        {"email": f"{word}-work@example.com", "verified": True, "primary": False},
        {"email": f"{word}-unconfirmed@example.com", "verified": False, "primary": True},
    ]
    asked = await back(client, (await leave(client, rogue, "/login/github"))["state"], key="github")
    await client.post(asked.headers["location"], data={"organization": "Ada"})
    assert (await client.get("/whoami")).json()["email"] == f"{word}-work@example.com"
    token = next(sent for path, sent in rogue.asked if path == "/login/oauth/access_token")
    assert (token["client_secret"], len(token["code_verifier"]) >= 43) == (SECRET, True)
    client.cookies.clear()
    rogue.emails = []
    known = await back(client, (await leave(client, rogue, "/login/github"))["state"], key="github")
    assert known.headers["location"] == "/"
    rogue.person = {"id": 7}
    client.cookies.clear()
    nobody = await back(client, (await leave(client, rogue, "/login/github"))["state"], key="github")
    assert code_of(nobody) == "email_unverified"


async def test_without_providers_nothing_shows_and_nothing_answers(database: str) -> None:
    async with running(settings_for(database, STEPWELL_SIGN_UP="open")) as client:
        for path in ("/login", "/sign-up"):
            assert "Continue with" not in (await client.get(path)).text
        assert (await client.post("/login/acme", data={})).status_code == 404
        assert (await client.get("/login/acme/callback")).status_code == 404
        await log_in(client, await new_tenant(database))
        assert "Sign-in methods" not in (await client.get("/settings/security")).text


async def test_doctor_says_which_provider_is_wrong_and_what_address_it_must_know(rogue: Rogue, database: str) -> None:
    settings = settings_for(database, STEPWELL_LOGIN_PROVIDERS=providers_at(rogue))
    openid, github = await check_providers(settings)
    assert (openid.verdict, github.verdict) == (Verdict.OK, Verdict.OK)
    assert "http://127.0.0.1:8288/login/acme/callback" in openid.found
    rogue.metadata = {"issuer": "https://accounts.google.com"}
    wrong, _ = await check_providers(settings)
    assert (wrong.verdict, "another issuer" in wrong.found) == (Verdict.WARNING, True)
    rogue.broken = {"/.well-known/openid-configuration": (500, b"")}
    down, _ = await check_providers(settings)
    assert (down.verdict, "does not answer" in down.found) == (Verdict.WARNING, True)


async def test_too_many_journeys_from_one_network_have_to_wait(
    client: Client, rogue: Rogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "MOST_PER_NETWORK", 1)
    await leave(client, rogue)
    answer = await client.post("/login/acme", data={})
    assert (answer.status_code, code_of(answer)) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) > 0


async def test_somebody_without_an_organization_is_told_so(client: Client, rogue: Rogue, engine_pool: Pool) -> None:
    await signed_up(client, rogue)
    await engine_pool.execute(
        "delete from memberships where user_id = (select id from users where email = $1)", rogue.person["email"]
    )
    client.cookies.clear()
    assert code_of(await through(client, rogue)) == "no_organization"


async def test_the_keeper_removes_journeys_nobody_returned_from(
    client: Client, rogue: Rogue, engine_pool: Pool
) -> None:
    await leave(client, rogue)
    await engine_pool.execute("update journeys set expires_at = clock() - interval '1 second'")
    async with engine_pool.acquire() as conn:
        assert await identities.delete_expired(conn) > 0
    assert await engine_pool.fetchval("select count(*) from journeys") == 0


async def test_what_a_journey_keeps_is_sealed(client: Client, rogue: Rogue, engine_pool: Pool) -> None:
    query = await leave(client, rogue)
    rows = await engine_pool.fetch("select * from journeys")
    text = str([dict(row) for row in rows])
    assert query["state"] not in text
    assert query["nonce"] not in text
