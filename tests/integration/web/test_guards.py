"""Forged requests, foreign environments, low roles, and the laptop where nobody signs in."""

from typing import Any

import pytest

from app.accounts.bootstrap import DEV_SCOPE
from app.store.db import Pool
from tests.integration.accounts.world import BASE_URL, new_tenant
from tests.integration.web.site import Client, log_in, running, settings_for

OURS, CROSS = {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "cross-site"}


@pytest.mark.parametrize(
    ("headers", "where", "status"),
    [
        (OURS, "form", 200),
        (OURS, "header", 200),
        ({"origin": BASE_URL}, "form", 200),
        ({}, "form", 200),
        (OURS, "nowhere", 403),
        (OURS, "empty", 403),
        (OURS, "another session's", 403),
        (CROSS, "form", 403),
        (CROSS, "header", 403),
        ({"sec-fetch-site": "same-site"}, "form", 403),
        ({"origin": "https://evil.example"}, "form", 403),
        ({"origin": "null"}, "header", 403),
        ({}, "nowhere", 403),
    ],
)
async def test_unsafe_requests_need_both_proofs(
    client: Client, database: str, headers: dict[str, str], where: str, status: int
) -> None:
    made = await new_tenant(database)
    other = await log_in(client, await new_tenant(database))
    token = await log_in(client, made)
    fields: dict[str, str] = {
        "form": {"csrf_token": token},
        "header": {},
        "nowhere": {},
        "empty": {"csrf_token": ""},
        "another session's": {"csrf_token": other},
    }[where]
    more = {"x-csrf-token": token} if where == "header" else {}
    answer = await client.post("/change", data={"say": "hello"} | fields, headers=headers | more)
    assert answer.status_code == status
    if status == 200:
        assert answer.json() == {"said": "hello"}


async def test_a_forged_request_is_refused_before_anything_else_is_said(client: Client) -> None:
    assert (await client.post("/change", headers=CROSS)).status_code == 403
    assert (await client.post("/change", headers=OURS)).headers["location"] == "/login"


async def test_a_token_in_a_json_body_does_not_count(client: Client, database: str) -> None:
    token = await log_in(client, await new_tenant(database))
    assert (await client.post("/change", json={"csrf_token": token}, headers=OURS)).status_code == 403


async def test_environments_of_others_are_not_found_like_unknown_ones(client: Client, database: str) -> None:
    mine, other = await new_tenant(database), await new_tenant(database, environment="Secret Place")
    await log_in(client, mine)
    own = await client.get("/env/production/name")
    assert own.json() == {"name": "Production", "id": mine["environment_id"]}

    def without_id(answer: Any) -> tuple[int, str]:
        return answer.status_code, answer.text.replace(answer.headers["x-request-id"], "")

    foreign = await client.get("/env/secret-place/name")
    unknown = await client.get("/env/no-such-place/name")
    assert without_id(foreign) == without_id(unknown)
    assert foreign.status_code == 404
    assert other["environment_id"] not in foreign.text


async def test_a_role_that_is_too_low_is_refused_and_noted(client: Client, database: str, engine_pool: Pool) -> None:
    made = await new_tenant(database)
    token = await log_in(client, made)
    assert (await client.post("/admins-only", data={"csrf_token": token})).status_code == 200
    for role in ("viewer", "member"):
        await engine_pool.execute("update memberships set role = $2 where user_id::text = $1", made["user_id"], role)
        assert (await client.post("/admins-only", data={"csrf_token": token})).status_code == 403
    rows = await engine_pool.fetch(
        "select actor, detail from audit_log where account_id::text = $1 and action = 'role.refused' order by at",
        made["organization_id"],
    )
    assert [row["actor"] for row in rows] == [made["user"]] * 2
    assert '"has": "viewer"' in rows[0]["detail"]


async def test_in_dev_mode_everybody_is_the_developer(database: str) -> None:
    async with running(settings_for(database, STEPWELL_MODE="dev")) as client:
        who = await client.get("/whoami")
        assert (who.json()["account"], who.json()["role"]) == (str(DEV_SCOPE.account_id), "owner")
        assert who.headers["x-inngest-server-kind"] == "dev"
        assert (await client.get("/env/dev/name")).json()["id"] == str(DEV_SCOPE.environment_id)
        assert (await client.post("/change", data={"say": "hi"})).json() == {"said": "hi"}
        assert (await client.post("/change", data={"say": "hi"}, headers=CROSS)).status_code == 403
        assert (await client.get("/whoami", headers={"host": "rebound.example:8288"})).status_code == 421
        assert (await client.get("/login")).headers["location"] == "/"
        assert (await client.post("/login")).headers["location"] == "/"
        assert (await client.get("/v1/whose/anything")).text == str(DEV_SCOPE.environment_id)
        assert (await client.get("/v1/whose")).text == str(DEV_SCOPE.environment_id)


async def test_in_signed_mode_machines_need_their_key(client: Client, database: str) -> None:
    made = await new_tenant(database)
    assert (await client.get(f"/v1/whose/{made['event_key']}")).text == made["environment_id"]
    assert (await client.get("/v1/whose/anything")).status_code == 401
    bearer = {"authorization": f"Bearer {made['signing_key']}"}
    assert (await client.get("/v1/whose", headers=bearer)).text == made["environment_id"]
    assert (await client.get("/v1/whose")).status_code == 401
