"""Login and logout in a browser's eyes."""

import re

import pytest

from app.accounts.login import LoginLimits
from tests.integration.accounts.world import Tenant, new_tenant
from tests.integration.web.site import Client, log_in, running, settings_for


async def test_signing_in_leads_on_and_signing_out_ends_it(client: Client, database: str) -> None:
    made = await new_tenant(database)
    answer = await client.post(
        "/login", data={"email": made["user"], "password": made["password"], "next": "/env/production/runs?last=24h"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/env/production/runs?last=24h")
    who = (await client.get("/whoami")).json()
    assert (who["email"], who["account"], who["role"]) == (made["user"], made["organization_id"], "owner")
    assert (await client.get("/login")).headers["location"] == "/"

    cookie = client.cookies["stepwell"]
    answer = await client.post("/logout", data={"csrf_token": who["csrf_token"]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "stepwell" not in client.cookies
    client.cookies.set("stepwell", cookie)
    assert (await client.get("/whoami")).status_code == 303


async def test_a_login_gives_a_new_session_id_and_ends_the_browsers_old_one(client: Client, database: str) -> None:
    made, other = await new_tenant(database), await new_tenant(database)

    async def session_after_login(tenant: Tenant, former: str) -> str:
        client.cookies.clear()
        form = {"email": tenant["user"], "password": tenant["password"]}
        await client.post("/login", data=form, headers={"cookie": f"stepwell={former}"})
        return client.cookies["stepwell"]

    first = await session_after_login(made, "planted")
    second = await session_after_login(other, first)
    assert len({"planted", first, second}) == 3
    client.cookies.clear()
    assert (await client.get("/whoami", headers={"cookie": f"stepwell={first}"})).status_code == 303
    assert (await client.get("/whoami", headers={"cookie": f"stepwell={second}"})).status_code == 200


@pytest.mark.parametrize(
    ("base_url", "name", "secure"),
    [("http://stepwell.example", "stepwell", False), ("https://stepwell.example", "__Host-stepwell", True)],
)
async def test_cookie_flags_follow_the_base_url(database: str, base_url: str, name: str, secure: bool) -> None:
    made = await new_tenant(database)
    async with running(settings_for(database, STEPWELL_BASE_URL=base_url)) as client:
        answer = await client.post("/login", data={"email": made["user"], "password": made["password"]})
        cookie, *flags = answer.headers["set-cookie"].split("; ")
        assert cookie.partition("=")[0] == name
        flags = [flag.lower() for flag in flags]
        assert ("secure" in flags) is secure
        assert {"httponly", "path=/", "samesite=lax", "max-age=2592000"} <= set(flags)
        assert not any(flag.startswith("domain") for flag in flags)
        assert (await client.get("/whoami")).json()["email"] == made["user"]
        assert ("strict-transport-security" in answer.headers) is secure


@pytest.mark.parametrize(
    ("form", "status", "sentence", "wrong"),
    [
        ({"email": "", "password": "x"}, 422, "Enter your e-mail address.", "email"),
        ({"email": "a<b>@example.com", "password": ""}, 422, "Enter your password.", "password"),
        ({}, 422, "Enter your password.", "password"),
        (
            {"email": "a<b>@example.com", "password": "not it"},
            401,
            "E-mail address or password is wrong.",
            "password",
        ),
    ],
)
async def test_a_form_that_fails_says_why_beside_the_field_and_keeps_the_address(
    client: Client, form: dict[str, str], status: int, sentence: str, wrong: str
) -> None:
    answer = await client.post("/login", data=form | {"next": "/env/x/runs"})
    assert answer.status_code == status
    field = re.search(rf'<input[^>]*name="{wrong}"[^>]*>', answer.text)
    assert field is not None
    described = re.search(r'aria-describedby="([^"]+)"', field[0])
    assert described is not None
    assert re.search(rf'id="{described[1]}"[^>]*>([^<]|<svg.*?</svg>)*{re.escape(sentence)}', answer.text)
    assert 'aria-invalid="true"' in field[0]
    assert 'name="next" value="/env/x/runs"' in answer.text
    if form.get("email"):
        assert 'value="a&lt;b&gt;@example.com"' in answer.text
    assert "not it" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/login"])
async def test_a_login_leads_only_to_our_own_paths(client: Client, database: str, target: str) -> None:
    made = await new_tenant(database)
    form = {"email": made["user"], "password": made["password"], "next": target}
    assert (await client.post("/login", data=form)).headers["location"] == "/"
    client.cookies.clear()
    assert 'name="next" value="/"' in (await client.get("/login", params={"next": target})).text


async def test_too_many_tries_are_held_back_with_a_time(database: str) -> None:
    async with running(settings_for(database), LoginLimits(per_address=2)) as client:
        form = {"email": "somebody@example.com", "password": "wrong"}
        assert [(await client.post("/login", data=form)).status_code for _ in range(3)] == [401, 401, 429]
        held_back = await client.post("/login", data=form)
        assert 1 <= int(held_back.headers["retry-after"]) <= 900
        assert "Too many attempts. Try again in 15 minutes." in held_back.text
        assert 'value="somebody@example.com"' in held_back.text


async def test_who_is_not_signed_in_is_led_to_the_login_and_back(client: Client) -> None:
    answer = await client.get("/env/production/name?a=b&c=d")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fenv%2Fproduction%2Fname%3Fa%3Db%26c%3Dd"


async def test_a_partial_request_without_session_gets_no_page(client: Client) -> None:
    answer = await client.get("/whoami", headers={"hx-request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"], answer.text) == (401, "/login", "")


async def test_a_login_form_sent_from_elsewhere_is_refused(client: Client, database: str) -> None:
    made = await new_tenant(database)
    form = {"email": made["user"], "password": made["password"]}
    answer = await client.post("/login", data=form, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_a_huge_form_is_refused_unread(client: Client) -> None:
    answer = await client.post("/login", data={"email": "x" * 20_000, "password": "x"})
    assert answer.status_code == 413


async def test_an_oddly_sent_form_is_not_our_failure(client: Client) -> None:
    for content, content_type in ((b"\xff\xfe=%zz", "application/x-www-form-urlencoded"), (b"{}", "application/json")):
        answer = await client.post("/login", content=content, headers={"content-type": content_type})
        assert answer.status_code == 422
    answer = await client.post("/login", files={"email": ("a.txt", b"a@example.com"), "password": ("b", b"x")})
    assert answer.status_code == 422


async def test_signing_in_works_after_signing_in_elsewhere(client: Client, database: str) -> None:
    made = await new_tenant(database)
    assert await log_in(client, made) != await log_in(client, made)
