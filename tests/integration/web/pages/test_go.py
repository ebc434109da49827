"""Search or jump: ids open what they name wherever it is, names are found, and nothing of others is."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.domain.ids import AccountId, EnvironmentId, to_ulid
from tests import world
from tests.integration.accounts.world import new_tenant
from tests.integration.web.pages.people import SAME, Person, store_event, store_function, world_of


async def second_environment(ada: Person, owner: Any) -> world.Tenant:
    """Make the environment Staging; give it as builders know it."""
    made = await ada.client.post("/env/new", data={"csrf_token": ada.csrf, "name": "Staging"}, headers=SAME)
    assert made.status_code == 303
    account: UUID = ada.tenant.account_id
    found = await owner.fetchval("select id from environments where account_id = $1 and slug = 'staging'", account)
    one = ada.tenant
    return world.Tenant(
        AccountId(account),
        one.account_name,
        EnvironmentId(found),
        "staging",
        "Staging",
        "custom",
        one.user_id,
        one.email,
    )


@pytest.mark.parametrize("paste", ["{}", "  {}\n", "see https://stepwell.test/env/x/runs/{}?step=a", "{} and more"])
async def test_a_run_id_opens_the_run_in_whatever_environment_it_is(ada: Person, owner: Any, paste: str) -> None:
    staging = await second_environment(ada, owner)
    now = await owner.fetchval("select clock()")
    story = await world.order_completed(await world.make_function(owner, staging), now - timedelta(minutes=1)).save(
        owner
    )
    answer = await ada.client.get("/go", params={"q": paste.format(story.ulid), "from": "production"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/env/staging/runs/{story.ulid}")
    lower = await ada.client.get("/go", params={"q": paste.format(story.ulid.lower())})
    assert lower.headers["location"] == f"/env/staging/runs/{story.ulid}"


async def test_an_event_id_opens_the_event(ada: Person, owner: Any) -> None:
    event = await store_event(owner, ada.tenant)
    answer = await ada.client.get("/go", params={"q": to_ulid(event)})
    assert answer.headers["location"] == f"/env/production/events/{to_ulid(event)}"


async def test_names_are_found_as_links_and_the_palette_gets_only_the_list(ada: Person, owner: Any) -> None:
    await store_function(owner, ada.tenant, "charge-card")
    await store_event(owner, ada.tenant, "card/charged")
    page = (await ada.client.get("/go", params={"q": "CHARGE", "from": "production"})).text
    assert 'href="/env/production/functions/shop-charge-card"' in page
    assert 'href="/env/production/events?name=card%2Fcharged"' in page
    assert 'href="/env/production/apps/shop"' in (await ada.client.get("/go", params={"q": "sho"})).text
    assert 'href="/env/production/keys/signing"' in (await ada.client.get("/go", params={"q": "signing"})).text
    headers = {"hx-request": "true", "hx-request-type": "partial", "hx-target": "div#found"}
    part = (await ada.client.get("/go", params={"q": "charge"}, headers=headers)).text
    assert "<html" not in part
    assert "shop-charge-card" in part
    assert "Nothing is called" in (await ada.client.get("/go", params={"q": "zzz\x00"})).text


async def test_what_others_have_is_not_found(ada: Person, owner: Any, database: str) -> None:
    theirs = world_of(await new_tenant(database))
    now = await owner.fetchval("select clock()")
    story = await world.order_completed(await store_function(owner, theirs, "their-secret"), now).save(owner)
    for text in (story.ulid, to_ulid(story.event_id), "their-secret"):
        answer = await ada.client.get("/go", params={"q": text})
        assert answer.status_code == 200
        assert "Nothing is called" in answer.text
