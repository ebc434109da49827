"""The events pages on the whole application: what people see, send and may not."""

import gzip
import json
import re
from datetime import timedelta
from typing import Any

import pytest

from app.domain.ids import to_ulid
from tests import world
from tests.integration.web.pages.people import HOSTILE, actions, make_role, store_event, store_function

PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "section#list"}


def rows_of(text: str) -> list[str]:
    return re.findall(r'<tr id="event-(\w+)"', text)


async def test_the_list_shows_events_newest_first_with_what_they_started(ada: Any, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "charge")
    now = await owner.fetchval("select clock()")
    story = await world.order_completed(function, now - timedelta(minutes=1)).save(owner)
    lonely = await store_event(owner, ada.tenant, "nobody/listens")
    text = (await ada.get("/events")).text
    assert rows_of(text) == [to_ulid(lonely), to_ulid(story.event_id)]
    assert f'href="/env/production/runs/{story.ulid}"' in text
    assert "charge: completed" in text
    assert "<title>Events · Production · Stepwell</title>" in text


async def test_internal_events_are_hidden_until_asked_for(ada: Any, owner: Any) -> None:
    plain = await store_event(owner, ada.tenant)
    internal = await store_event(owner, ada.tenant, "inngest/function.finished")
    assert rows_of((await ada.get("/events")).text) == [to_ulid(plain)]
    assert rows_of((await ada.get("/events?internal=1")).text) == [to_ulid(internal), to_ulid(plain)]
    named = (await ada.get("/events?name=inngest/function.finished")).text
    assert rows_of(named) == [to_ulid(internal)]


async def test_an_event_is_found_by_its_id_and_by_its_senders(ada: Any, owner: Any) -> None:
    await store_event(owner, ada.tenant)
    wanted = await store_event(owner, ada.tenant, client_id="order-77")
    assert rows_of((await ada.get(f"/events?q={to_ulid(wanted)}")).text) == [to_ulid(wanted)]
    assert rows_of((await ada.get("/events?q=order-77")).text) == [to_ulid(wanted)]
    assert "No event matches" in (await ada.get("/events?q=order-78")).text


async def test_pages_follow_each_other_without_gaps_though_events_arrived_together(ada: Any, owner: Any) -> None:
    at = await owner.fetchval("select clock()")
    ids = [to_ulid(await store_event(owner, ada.tenant, received_at=at)) for _ in range(120)]
    seen: list[str] = []
    path: str | None = "/events"
    while path:
        text = (await ada.get(path)).text
        seen += rows_of(text)
        older = re.search(r'href="/env/production(/events\?[^"]*before=[^"]+)">Older', text)
        path = older[1].replace("&amp;", "&") if older else None
    assert sorted(seen) == sorted(ids)
    assert len(seen) == 120
    first = (await ada.get("/events")).text
    second = (await ada.get(re.search(r'(/events\?before=[^"]+)">Older', first)[1])).text  # type: ignore[index]
    back = (await ada.get(re.search(r'(/events\?after=[^"]+)">Newer', second)[1])).text  # type: ignore[index]
    assert rows_of(back) == rows_of(first)


async def test_a_rare_name_is_looked_for_in_bounds_and_the_page_says_so(ada: Any, owner: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("app.reads.events.SCANNED", 3)
    now = await owner.fetchval("select clock()")
    rare = await store_event(owner, ada.tenant, "rare/one", received_at=now - timedelta(hours=1))
    for _ in range(5):
        await store_event(owner, ada.tenant)
    text = (await ada.get("/events?name=rare/one")).text
    assert "None among the newest" in text
    older = re.search(r'href="/env/production(/events\?[^"]*before=[^"]+)">Older', text)
    assert older
    assert rows_of((await ada.get(older[1].replace("&amp;", "&"))).text) == [to_ulid(rare)]


async def test_pages_ask_few_things_and_stay_small(ada: Any, owner: Any, statements: Any) -> None:
    function = await store_function(owner, ada.tenant, "charge")
    now = await owner.fetchval("select clock()")
    stories = [await world.order_completed(function, now - timedelta(seconds=n)).save(owner) for n in range(50)]
    statements.clear()
    text = (await ada.get("/events")).text
    assert len(statements) <= 6
    assert text.count("<tr id=") == 50
    assert len(gzip.compress(text.encode())) <= 14 * 1024
    statements.clear()
    page = (await ada.get(f"/events/{to_ulid(stories[0].event_id)}")).text
    assert len(statements) <= 6
    assert len(gzip.compress(page.encode())) <= 14 * 1024


async def test_the_page_says_for_each_function_why_it_did_not_run(ada: Any, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "charge")
    event = await store_event(owner, ada.tenant)
    await owner.execute(
        "insert into dispositions (environment_id, event_id, function_id, account_id, outcome)"
        " values ($1, $2, $3, $4, 'paused')",
        ada.tenant.environment_id, event, function.id, ada.tenant.account_id,
    )  # fmt: skip
    assert "no run: paused" in (await ada.get("/events")).text
    page = (await ada.get(f"/events/{to_ulid(event)}")).text
    assert "The function was paused." in page
    assert 'href="/env/production/functions/shop-charge"' in page
    nobody = (await ada.get(f"/events/{to_ulid(await store_event(owner, ada.tenant, 'x/y'))}")).text
    assert "No function of this environment listens to" in nobody


async def test_what_is_sent_is_stored_with_its_source_and_noted(ada: Any, owner: Any, page_pool: Any) -> None:
    answer = await ada.post("/events/send", body='{"name": "order/placed", "data": {"price": 1.10, "n": 1}}')
    assert answer.status_code == 303
    ulid = answer.headers["location"].rpartition("/")[2]
    row = await owner.fetchrow("select * from events where environment_id = $1", ada.tenant.environment_id)
    assert (to_ulid(row["id"]), row["source"], row["name"]) == (ulid, "page", "order/placed")
    assert await owner.fetchval("select count(*) from inbox where event_id = $1", row["id"]) == 1
    assert await actions(page_pool, ada.made) == ["event.sent"]
    page = await ada.get(f"/events/{ulid}")
    assert "It has just arrived." in page.text
    several = await ada.post("/events/send", body='[{"name": "a"}, {"name": "b"}]')
    assert several.headers["location"] == "/env/production/events"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"name": "a",\n  "data": {,}}', "Line 2, column 12."),
        ("", "The request has no body"),
        ('[{"name": "a"}, {"data": {}}]', "event number 2"),
        ('{"name": "inngest/x"}', "reserved"),
        ('{"name": "a", "data": 7}', "must be an object"),
    ],
)
async def test_a_bad_event_comes_back_with_its_place_and_its_text(ada: Any, owner: Any, body: str, words: str) -> None:
    answer = await ada.post("/events/send", body=body)
    assert answer.status_code == 422
    assert words in answer.text
    assert 'aria-invalid="true"' in answer.text
    if "reserved" in words:
        assert "inngest/x&#34;" in answer.text
    assert await owner.fetchval("select count(*) from events where account_id = $1", ada.tenant.account_id) == 0


async def test_an_event_is_sent_again_with_a_new_id_and_every_digit(ada: Any, owner: Any) -> None:
    payload = '{"data":{"big":1152921504606846977,"price":1.10},"id":"order-77","name":"order/placed","ts":1,"user":{}}'
    event = await store_event(owner, ada.tenant, payload=payload, client_id="order-77", original=payload)
    answer = await ada.post(f"/events/{to_ulid(event)}/again")
    copy = await owner.fetchrow(
        "select * from events where environment_id = $1 and id <> $2", ada.tenant.environment_id, event
    )
    assert answer.headers["location"].endswith(to_ulid(copy["id"]))
    assert copy["client_id"] is None
    assert "1152921504606846977" in copy["original"]
    assert json.loads(copy["payload"])["ts"] > 1
    form = (await ada.get(f"/events/send?from={to_ulid(event)}")).text
    assert "1152921504606846977" in form
    assert "order-77" not in form


async def test_internal_events_cannot_be_sent_again(ada: Any, owner: Any) -> None:
    event = await store_event(owner, ada.tenant, "inngest/function.finished")
    assert "Send again" not in (await ada.get(f"/events/{to_ulid(event)}")).text
    assert (await ada.post(f"/events/{to_ulid(event)}/again")).status_code == 400


async def test_a_viewer_looks_but_sends_nothing(ada: Any, owner: Any, page_pool: Any) -> None:
    event = await store_event(owner, ada.tenant)
    await make_role(owner, ada.made, "viewer")
    for path in (f"/events/{to_ulid(event)}", "/events", "/events/send"):
        assert (await ada.get(path)).status_code == 200
    assert "Send again" not in (await ada.get(f"/events/{to_ulid(event)}")).text
    for path in ("/events/send", f"/events/{to_ulid(event)}/again"):
        assert (await ada.post(path, body="{}")).status_code == 403
    assert await actions(page_pool, ada.made) == ["role.refused"] * 2


async def test_sending_needs_the_forms_token(ada: Any) -> None:
    answer = await ada.client.post("/env/production/events/send", data={"body": '{"name":"a"}'})
    assert answer.status_code == 403


async def test_large_and_deep_payloads_are_cut_and_can_be_downloaded(ada: Any, owner: Any) -> None:
    text = json.dumps({"name": "big", "data": {"text": "x" * 1_000_000, "zero": "\u0000"}})
    event = await store_event(owner, ada.tenant, payload=text)
    page = await ada.get(f"/events/{to_ulid(event)}")
    assert "Only the first part is shown" in page.text
    assert len(page.text) < 40_000
    download = await ada.get(f"/events/{to_ulid(event)}/payload")
    assert download.text == text
    assert download.headers["content-disposition"].startswith("attachment")
    assert download.headers["x-content-type-options"] == "nosniff"
    deep = await store_event(owner, ada.tenant, payload='{"name":"a","data":' + '{"a":' * 200 + "1" + "}" * 201)
    assert (await ada.get(f"/events/{to_ulid(deep)}")).status_code == 200


async def test_hostile_texts_are_shown_as_text(ada: Any, owner: Any) -> None:
    payload = json.dumps({"name": HOSTILE, "data": {HOSTILE: HOSTILE}})
    event = await store_event(owner, ada.tenant, HOSTILE, payload, client_id=HOSTILE, source=HOSTILE)
    for path in ("/events", f"/events/{to_ulid(event)}", f"/events/send?from={to_ulid(event)}"):
        text = (await ada.get(path)).text
        assert "<script>alert" not in text
        assert "<img" not in text
        if "send" not in path:
            assert "U+202E" in text
    filtered = (await ada.client.get("/env/production/events", params={"q": HOSTILE, "name": HOSTILE})).text
    assert "<script>alert" not in filtered


async def test_nonsense_in_the_address_is_not_an_error(ada: Any) -> None:
    for query in ("before=x", "after=1-2", "before=9999999999999999-01KAQ7M4VXE8T2R6H9BZC3WDNP", "q=%00", "name=%00"):
        assert (await ada.get(f"/events?{query}")).status_code == 200, query
    assert (await ada.get("/events/nonsense")).status_code == 404
    assert (await ada.get("/events/send?from=01KAQ7M4VXE8T2R6H9BZC3WDNP")).status_code == 404


async def test_changes_are_rows_in_place_and_a_pill(ada: Any, owner: Any) -> None:
    first = await store_event(owner, ada.tenant)
    text = (await ada.get("/events")).text
    poll = re.search(r'hx-get="/env/production(/events/changes[^"]*)"', text)
    assert poll
    await store_event(owner, ada.tenant)
    await store_event(owner, ada.tenant, "inngest/function.finished")
    changed = (await ada.get(poll[1].replace("&amp;", "&") + f"&live={to_ulid(first)}&live=nonsense")).text
    assert f'hx-target="#event-{to_ulid(first)}"' in changed
    assert "1 new event. Show it" in changed


async def test_a_filter_answers_htmx_with_list_and_poll_only(ada: Any, owner: Any) -> None:
    await store_event(owner, ada.tenant)
    answer = await ada.get("/events?internal=1", **PARTIAL)
    assert "<html" not in answer.text
    assert re.findall(r'hx-partial hx-target="#(\w+)"', answer.text) == ["changes"]


async def test_a_skipped_run_is_one_line_and_a_batch_leads_to_its_run(ada: Any, owner: Any) -> None:
    skipping = await store_function(owner, ada.tenant, "charge")
    batching = await store_function(owner, ada.tenant, "report")
    now = await owner.fetchval("select clock()")
    skipped = await world.order_queued(skipping, now).save(owner)
    await owner.execute(
        "update runs set status = 'skipped', error_code = 'singleton', ended_at = clock() where id = $1", skipped.id
    )
    batch = await world.order_completed(batching, now - timedelta(seconds=9)).save(owner)
    for function, outcome, run in ((skipping, "singleton", skipped), (batching, "batched", batch)):
        await owner.execute(
            "insert into dispositions (environment_id, event_id, function_id, account_id, outcome, run_id)"
            " values ($1, $2, $3, $4, $5, $6)",
            ada.tenant.environment_id, skipped.event_id, function.id, ada.tenant.account_id, outcome, run.id,
        )  # fmt: skip
    page = (await ada.get(f"/events/{to_ulid(skipped.event_id)}")).text
    assert page.count(f"/runs/{skipped.ulid}") == 1
    assert "it allows one at a time" in page
    assert f"/runs/{batch.ulid}" in page
    assert "It is part of this batch." in page


async def test_every_reason_for_no_run_is_said_and_a_delayed_run_says_why(ada: Any, owner: Any) -> None:
    event = await store_event(owner, ada.tenant)
    reasons = {
        "duplicate": "An event with this ID has started",
        "filtered": "condition was not true",
        "expression_error": "could not be worked out",
        "rate_limited": "rate limit was reached",
        "debounced": "held back until no more events come",
        "batched": "waits for its batch to fill",
        "paused": "was paused",
        "backlog": "starts later",
        "singleton": "allows one at a time",
    }
    for outcome in reasons:
        function = await store_function(owner, ada.tenant, f"fn-{outcome}")
        await owner.execute(
            "insert into dispositions (environment_id, event_id, function_id, account_id, outcome) values ($1, $2, $3, $4, $5)",
            ada.tenant.environment_id, event, function.id, ada.tenant.account_id, outcome,
        )  # fmt: skip
    text = (await ada.get(f"/events/{to_ulid(event)}")).text
    for outcome, words in reasons.items():
        assert words in text.split(f"fn-{outcome}<", 1)[1].split("</li>", 1)[0], outcome
    late = await store_function(owner, ada.tenant, "late")
    story = await world.order_queued(late, await owner.fetchval("select clock()")).save(owner)
    await owner.execute(
        "insert into dispositions (environment_id, event_id, function_id, account_id, outcome, run_id)"
        " values ($1, $2, $3, $4, 'backlog', $5)",
        ada.tenant.environment_id, story.event_id, late.id, ada.tenant.account_id, story.id,
    )  # fmt: skip
    page = (await ada.get(f"/events/{to_ulid(story.event_id)}")).text
    assert story.ulid in page
    assert "Too much was waiting" in page
