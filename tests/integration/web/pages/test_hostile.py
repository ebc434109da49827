"""Whatever a tenant stores, on every page that shows it: as text, bounded, and never a way out of the page."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from tests import world
from tests.every_page import BIDI, PAYLOADS, SCRIPT, furnish, pages
from tests.integration.accounts.world import new_tenant
from tests.integration.web.pages.people import Person
from tests.integration.web.site import running, settings_for
from tests.page_app import make_app
from tests.stripe_stand_in import SETTINGS
from tests.world import step_key

RUNS = "/env/production/runs"
#: What tells a page to a copy button or a form is not read by people: it may hold what it likes, escaped.
_UNREAD = re.compile(
    r"<(textarea|div|pre)\b[^>]*(?: hidden|<textarea)[^>]*>.*?</\1>|<textarea.*?</textarea>|<[^>]*>", re.DOTALL
)


@pytest.fixture
async def client(page_pool: Any, ours: Any) -> Any:
    app: Any = make_app(page_pool, ours)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as client:
        yield client


async def told(owner: Any, ours: Any, value: Any, memo: str | None = None) -> world.Story:
    """Write a failed run with one completed step whose input and output are the value."""
    function = await world.make_function(owner, ours)
    now = await owner.fetchval("select clock()")
    story = world.Story(function, now - timedelta(minutes=1), event_data=value).begin()
    story.call("step", 20).settle("step", output=value, given=value, memo=memo)
    failure = world.error(SCRIPT, BIDI, "\n".join([SCRIPT, BIDI] * 200))
    return await story.fail(failure).save(owner)


def check(text: str) -> None:
    """No markup of the tenant's, no hidden characters outside of what the copy button takes."""
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "<style>" not in text
    assert "<hx-partial hx-target='#main'" not in text


@pytest.mark.parametrize("name", PAYLOADS)
async def test_a_payload_is_text_and_bounded_on_every_tab(owner: Any, client: Any, ours: Any, name: str) -> None:
    story = await told(owner, ours, PAYLOADS[name])
    for path in (RUNS, f"{RUNS}/{story.ulid}", f"{RUNS}?status=failed&alike={story.ulid}"):
        answer = await client.get(path)
        assert answer.status_code == 200
        check(answer.text)
    for step in ("run", step_key("step")):
        for tab in ("error", "input", "output", "logs", "details", "test"):
            answer = await client.get(f"{RUNS}/{story.ulid}?step={step}&tab={tab}")
            assert answer.status_code == 200
            check(answer.text)
            assert len(answer.content) <= 400 * 1024, (name, step, tab)
        answer = await client.get(f"{RUNS}/{story.ulid}/edit?step={step}")
        assert answer.status_code == 200
        check(answer.text)


async def test_deep_nesting_neither_breaks_nor_swells_the_page(owner: Any, client: Any, ours: Any) -> None:
    deep = '{"data":' + "[" * 5000 + "]" * 5000 + "}"
    story = await told(owner, ours, {"fine": True}, memo=deep)
    for tab in ("output", "input", "details", "test"):
        answer = await client.get(f"{RUNS}/{story.ulid}?step={step_key('step')}&tab={tab}")
        assert answer.status_code == 200
        assert len(answer.content) <= 400 * 1024


async def test_a_large_payload_is_cut_and_can_be_had_whole_as_a_file(owner: Any, client: Any, ours: Any) -> None:
    story = await told(owner, ours, PAYLOADS["a megabyte"])
    text = (await client.get(f"{RUNS}/{story.ulid}?step={step_key('step')}&tab=output")).text
    assert "Only the first part is shown" in text
    path = f"{RUNS}/{story.ulid}/payload?step={step_key('step')}&part=output"
    assert path.replace("&", "&amp;") in text
    file = await client.get(path)
    assert file.headers["content-disposition"].startswith("attachment; filename=")
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["x-content-type-options"] == "nosniff"
    assert json.loads(file.text) == PAYLOADS["a megabyte"]


async def test_files_of_others_and_of_nothing_are_not_found(
    owner: Any, client: Any, ours: Any, theirs: Any, page_pool: Any
) -> None:
    story = await told(owner, theirs, {"secret": 1})
    mine = await told(owner, ours, {"mine": 1})
    for path in (
        f"{story.ulid}/payload?step=run&part=input",
        f"{story.ulid}/payload?step={step_key('step')}&part=output",
        f"{mine.ulid}/payload?step=nothing&part=output",
        f"{mine.ulid}/payload?step=run&part=password",
        "nonsense/payload",
        f"{story.ulid}/steps",
        f"{story.ulid}/why",
        f"{story.ulid}/edit",
        f"{story.ulid}/inside?child={mine.ulid}&scale=0-10",
        f"{mine.ulid}/inside?child={story.ulid}&scale=0-10",
    ):
        assert (await client.get(f"{RUNS}/{path}")).status_code == 404, path
    assert json.loads((await client.get(f"{RUNS}/{mine.ulid}/payload?step=run&part=input")).text)["data"] == {"mine": 1}


async def test_hostile_addresses_are_answered_calmly(owner: Any, client: Any, ours: Any) -> None:
    story = await told(owner, ours, {})
    for query in (
        "from=9999-99-99", "from=0001-01-01T00:00", "to=-1", "from=2026-01-01T00:00&to=2025-01-01T00:00",
        "status=<script>", "fn=%00", "alike=zzz", "bulk=01KAQ7M4VXE8T2R6H9BZC3WDNP", "last=1e9d", "size=1e3",
    ):  # fmt: skip
        answer = await client.get(f"{RUNS}?{query}")
        assert answer.status_code == 200, query
        check(answer.text)
    for query in ("after=-5", "after=999999", "group=<script>", "rows=99999999999", "kind=<b>", "q=%00&failed=2"):
        assert (await client.get(f"{RUNS}/{story.ulid}/steps?{query}")).status_code == 200, query


async def test_every_page_shows_hostile_things_as_text_and_bounded(database: str, owner: Any) -> None:
    made = await new_tenant(database)
    async with running(settings_for(database, STEPWELL_OPERATORS=made["user"], **SETTINGS)) as client:
        await _walk(await Person(client, made).sign_in(), owner)


async def _walk(ada: Person, owner: Any) -> None:
    shown = await furnish(owner, ada.tenant)
    walked: dict[str, str] = {}
    for kind, values in shown.hostile.items():
        for name, address in pages(ada.client.app, values).items():
            walked.setdefault(address, f"{name}, {kind}")
    assert len(walked) > 60
    wrong = {}
    for address, name in walked.items():
        answer = await ada.client.get(address)
        if answer.status_code not in (200, 302, 303) and "nothing-has-this" not in address:
            wrong[name] = f"{answer.status_code} {address}"
        check(answer.text)
        if len(answer.content) > 400 * 1024:
            wrong[name] = f"{len(answer.content)} octets"
        if any(hidden in _UNREAD.sub("", answer.text) for hidden in "\u202e\u2066\u2069\x00"):
            wrong[name] = "hidden characters"
    assert wrong == {}
