"""Sign-up in a browser's eyes: who may, what is there afterwards, and what is told about known addresses."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from app.accounts import sign_up
from tests.integration.accounts.world import new_tenant
from tests.integration.web.site import Client, running, settings_for
from tests.servers import TestServers, cloned_database

PASSWORD = "a long walk by the sea"


def form(**more: str) -> dict[str, str]:
    return {"email": f"{uuid4().hex[:8]}@example.com", "password": PASSWORD, "organization": "Ann & Sons"} | more


@pytest.fixture
async def open_door(database: str) -> AsyncIterator[Client]:
    """Give a client of an installation where anybody may sign up."""
    async with running(settings_for(database, STEPWELL_SIGN_UP="open")) as client:
        yield client


@pytest.fixture
def empty_database(servers: TestServers, servers_folder: Path, worker_number: int) -> Iterator[str]:
    """Give a database in which nobody has an account."""
    with cloned_database(servers, servers_folder, f"first{worker_number}") as url:
        yield url


async def test_signing_up_makes_everything_an_app_needs_and_leads_to_the_guide(open_door: Client) -> None:
    given = form()
    answer = await open_door.post("/sign-up", data=given)
    assert (answer.status_code, answer.headers["location"]) == (303, "/env/production/start")
    who = (await open_door.get("/whoami")).json()
    assert (who["email"], who["role"]) == (given["email"], "owner")
    guide = await open_door.get("/env/production/start")
    assert "INNGEST_SIGNING_KEY=signkey-prod-••••" in guide.text
    assert "INNGEST_EVENT_KEY=event-prod-••••" in guide.text


async def test_the_door_closes_behind_the_first(empty_database: str) -> None:
    async with running(settings_for(empty_database)) as client:
        assert "Create an account" in (await client.get("/login")).text
        assert (await client.post("/sign-up", data=form())).status_code == 303
        client.cookies.clear()
        assert "Create an account" not in (await client.get("/login")).text
        assert "Sign-up is closed" in (await client.get("/sign-up")).text
        answer = await client.post("/sign-up", data=form())
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_a_closed_door_answers_the_same_for_known_and_new_addresses(database: str) -> None:
    made = await new_tenant(database)
    async with running(settings_for(database, STEPWELL_SIGN_UP="closed")) as client:
        known = await client.post("/sign-up", data=form(email=made["user"], password=made["password"]))
        new = await client.post("/sign-up", data=form())
        assert (known.status_code, known.text) == (new.status_code, new.text)
        assert known.status_code == 403


@pytest.mark.parametrize(
    ("more", "field", "sentence"),
    [
        ({"email": ""}, "email", "Enter your e-mail address."),
        ({"email": "nobody"}, "email", "That is not an e-mail address"),
        ({"password": ""}, "password", "Enter a password of at least 12 characters."),
        ({"password": "short"}, "password", "Use at least 12 characters."),
        ({"password": "password1234"}, "password", "Many people use this password."),
        ({"organization": ""}, "organization", "Enter the name of your organization."),
        ({"organization": "x" * 101}, "organization", "A name has 1 to 100 characters"),
    ],
)
async def test_what_is_wrong_stands_beside_its_field_and_the_rest_is_kept(
    open_door: Client, more: dict[str, str], field: str, sentence: str
) -> None:
    answer = await open_door.post("/sign-up", data=form(organization="<b>Ann</b>") | more)
    assert answer.status_code == 422
    assert re.search(rf'id="{field}-error">{re.escape(sentence)}', answer.text)
    assert PASSWORD not in answer.text
    if "organization" not in more:
        assert 'value="&lt;b&gt;Ann&lt;/b&gt;"' in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_known_address_opens_only_with_its_own_password(open_door: Client, database: str) -> None:
    made = await new_tenant(database)
    answer = await open_door.post("/sign-up", data=form(email=made["user"].upper(), password="another long walk"))
    assert answer.status_code == 422
    assert "No account can be made with this address." in answer.text
    assert "set-cookie" not in answer.headers
    again = await open_door.post("/sign-up", data=form(email=made["user"], password=made["password"]))
    assert again.headers["location"] == "/"
    assert (await open_door.get("/whoami")).json()["account"] == made["organization_id"]


async def test_one_network_cannot_try_addresses_without_end(open_door: Client, database: str) -> None:
    made = await new_tenant(database)
    connection = await asyncpg.connect(database)
    await connection.execute("delete from login_attempts")
    await connection.close()
    answers = [
        await open_door.post("/sign-up", data=form(email=made["user"], password="another long walk"))
        for _ in range(sign_up.MOST_PER_NETWORK + 1)
    ]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0


async def test_a_form_from_another_site_makes_no_account(open_door: Client) -> None:
    answer = await open_door.post("/sign-up", data=form(), headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
