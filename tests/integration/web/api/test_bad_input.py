"""Every address of the API, asked for what is not there, not one's own, not well-formed, or not allowed.

The walk goes over the application's own routes: a route without an entry in `ROUTES` fails the first test.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from litestar.routes import HTTPRoute

from app.main import create_app
from app.store.db import Pool, open_engine_pool
from app.web.api import start
from tests.integration.web.api.look_alikes import LookAlike, look_alike
from tests.integration.web.site import Client, running, settings_for
from tests.unit.domain.vectors import exchanges

UNKNOWN = {
    "run": "01K0000000000000000000000A",
    "ended": "01K0000000000000000000000A",
    "event": "01K0000000000000000000000B",
    "order": "01K0000000000000000000000C",
}
UNKNOWN |= {"app": "00000000-0000-4000-8000-000000000000", "function": "00000000-0000-4000-8000-000000000000"}
UNKNOWN |= {"environment": "00000000-0000-4000-8000-000000000000"}
UNKNOWN |= {"override": "00000000-0000-4000-8000-000000000000"}
MALFORMED = ("x", "%00", "%2E%2E", "Z" * 26, "01K0000000000000000000000%F0%9F%92%A9", "a" * 600, "%27%20or%201=1--")
TOO_LARGE = 10 * 1024 * 1024 + 1


@dataclass(frozen=True)
class Route:
    """How an address is asked well (`ids`, `body`), and what it says of what is not there.

    `ids`: what each place of the path stands for. `refuses`: bodies and the code each is refused with.
    """

    ids: dict[str, str] = field(default_factory=dict)
    body: Any = None
    is_open: bool = False
    status: int = 200
    missing: tuple[int, str | None] = (404, "not_found")
    refuses: tuple[tuple[bytes, str], ...] = ()


_JSON = (
    (b"{", "json_invalid"),
    (b"[]", "body_invalid"),
    (b'{"a":NaN}', "json_number_range"),
    (b'{"\xff":1}', "json_encoding"),
)
_RUN, _ENDED, _EVENT = {"run_id": "run"}, {"run_id": "ended"}, {"event_id": "event"}
_APP, _FUNCTION = {"app_name": "app"}, {"app_name": "app", "function": "function"}
_GONE = (410, "state_gone")
_CHECKPOINT = {"run_id": "01K0000000000000000000000A", "steps": [{"op": "StepRun", "id": "a", "name": "a", "data": 1}]}

V2 = {
    "GET /health": Route(is_open=True),
    "POST /events": Route(
        body={"name": "a/b", "data": {"n": 1}},
        refuses=(
            *_JSON,
            (b"{}", "field_invalid"),
            (b'{"name":1}', "event_name_invalid"),
            (b'{"name":"inngest/x"}', "event_name_reserved"),
            (b'{"name":"a","data":[]}', "event_data_invalid"),
            (b'{"name":"a","ts":"1"}', "event_ts_invalid"),
            (b'{"name":"a","id":7}', "event_id_invalid"),
            (b'{"name":"a","accountId":"x"}', "field_unknown"),
            (b'{"name":"a","environment_id":"x"}', "field_unknown"),
        ),
    ),
    "GET /runs": Route(),
    "GET /apps/{app_name}/functions/{function}/runs": Route(_FUNCTION),
    "GET /events/{event_id}/runs": Route(_EVENT, missing=(200, None)),
    "GET /runs/{run_id}": Route(_RUN),
    "GET /runs/{run_id}/trace": Route(_ENDED),
    "POST /runs/{run_id}/cancel": Route(_ENDED),
    "POST /runs/{run_id}/rerun": Route(
        _ENDED,
        body={"fromStep": {"stepId": "a", "input": [1]}},
        refuses=(
            *_JSON,
            (b'{"fromStep":"a"}', "field_invalid"),
            (b'{"fromStep":{}}', "field_invalid"),
            (b'{"fromStep":{"stepId":7}}', "field_invalid"),
            (b'{"fromStep":{"stepId":"a","x":1}}', "field_unknown"),
            (b'{"fromStep":{"stepId":"none"}}', "step_unknown"),
            (b'{"status":"COMPLETED"}', "field_unknown"),
        ),
    ),
    "GET /apps": Route(),
    "GET /apps/{app_name}": Route(_APP),
    "GET /apps/{app_name}/functions": Route(_APP),
    "GET /apps/{app_name}/functions/{function}": Route(_FUNCTION),
    "POST /apps/{app_name}/functions/{function}/invoke": Route(
        _FUNCTION,
        body={"data": {"n": 1}, "idempotencyKey": "once"},
        status=202,  # No worker is there to start it.
        refuses=(
            *_JSON,
            (b'{"data":[]}', "field_invalid"),
            (b'{"idempotencyKey":7}', "field_invalid"),
            (b'{"idempotencyKey":"\\u0000"}', "field_invalid"),
            (b'{"runId":"x"}', "field_unknown"),
        ),
    ),
    "GET /apps/{app_name}/functions/{function}/overrides": Route(_FUNCTION),
    "POST /apps/{app_name}/functions/{function}/overrides": Route(
        _FUNCTION,
        body={"kind": "hold", "expiresIn": "1m", "reason": "why"},
        refuses=(
            *_JSON,
            (b"{}", "field_invalid"),
            (b'{"kind":"all"}', "field_invalid"),
            (b'{"kind":7}', "field_invalid"),
            (b'{"kind":"hold"}', "field_invalid"),
            (b'{"kind":"hold","expiresIn":60}', "field_invalid"),
            (b'{"kind":"hold","expiresIn":"soon"}', "field_invalid"),
            (b'{"kind":"hold","expiresIn":"1s"}', "override_invalid"),
            (b'{"kind":"hold","expiresIn":"1h","reason":"' + b"x" * 501 + b'"}', "field_invalid"),
            (b'{"kind":"limit","limit":"concurrency","expiresIn":"1h"}', "field_invalid"),
            (b'{"kind":"limit","limit":"concurrency","allowed":"3","expiresIn":"1h"}', "field_invalid"),
            (b'{"kind":"limit","limit":"concurrency","allowed":true,"expiresIn":"1h"}', "field_invalid"),
            (b'{"kind":"limit","limit":"none","allowed":3,"expiresIn":"1h"}', "limit_unknown"),
            (b'{"kind":"key","limit":"concurrency","key":7,"expiresIn":"1h"}', "field_invalid"),
            (b'{"kind":"retry","initial":"5s","factor":1000}', "override_invalid"),
            (b'{"kind":"retry","initial":"1ms"}', "override_invalid"),
            (b'{"kind":"retry"}', "field_invalid"),
            (b'{"kind":"hold","environmentId":"x"}', "field_unknown"),
        ),
    ),
    "DELETE /apps/{app_name}/functions/{function}/overrides/{override_id}": Route(
        _FUNCTION | {"override_id": "override"}
    ),
    "POST /apps/{app_name}/syncs": Route(
        _APP,
        status=400,  # Nobody answers there.
        refuses=(
            *_JSON,
            (b'{"url":7}', "field_invalid"),
            (b'{"url":""}', "field_invalid"),
            (b'{"url":"http://127.0.0.1:1/api"}', "http_unreachable"),
            (b'{"url":"file:///etc/passwd"}', "http_unreachable"),
            (b'{"url":"http://169.254.169.254/latest"}', "http_unreachable"),
            (b'{"org":"x"}', "field_unknown"),
        ),
    ),
    "GET /keys/events": Route(),
    "GET /keys/signing": Route(),
    "GET /envs": Route(),
    "GET /account": Route(),
}
ROUTES = {
    "POST /fn/register": Route(
        body={"appname": "other", "url": "http://app.test/x", "functions": [
            {"id": "other-f", "name": "f", "triggers": [{"event": "x"}], "steps": {"step": {
                "id": "step", "name": "step", "runtime": {"type": "http", "url": "http://app.test/x?fnId=other-f"}}}}]},
        refuses=(
            (b"{", "registration_invalid"),
            (b"[]", "registration_invalid"),
            (b"{}", "app_id_required"),
            (b'{"appname":"x","url":"ftp://x","functions":[]}', "registration_invalid"),
            (b'{"appname":"x","url":"http://app.test"}', "no_functions"),
            (b'{"appname":"x","url":"http://app.test","functions":[7]}', "config_invalid"),
        ),
    ),
    "DELETE /fn/remove": Route(status=400),  # The address is asked for by the query below.
    "GET /dev": Route(is_open=True, status=404),
    "POST /v0/telemetry": Route(is_open=True),
    "DELETE /v0/runs/{run_id}": Route(_ENDED, status=204),
    "GET /v0/runs/{run_id}/actions": Route(_ENDED, missing=_GONE),
    "GET /v0/runs/{run_id}/batch": Route(_ENDED, missing=_GONE),
    "GET /v1/events": Route(),
    "GET /v1/events/{event_id}": Route(_EVENT),
    # Asked again and again after a send, before the run is there: what is not there yet is an empty list.
    "GET /v1/events/{event_id}/runs": Route(_EVENT, missing=(200, None)),
    "GET /v1/runs/{run_id}": Route(_RUN),
    "GET /v1/runs/{run_id}/jobs": Route(_RUN),
    "GET /v1/runs/{run_id}/explain": Route(_RUN),
    "POST /v1/runs/{run_id}/metadata": Route(_RUN, body={"target": {}, "metadata": []}, status=403),  # Not kept.
    "GET /v1/prom/{env}": Route({"env": "environment"}),
    "DELETE /v1/runs/{run_id}": Route(_ENDED),
    "GET /v1/apps/{app_name}/functions": Route(_APP),
    "POST /invoke/{slug}": Route(
        {"slug": "function"},
        body={"data": {"n": 1}},
        refuses=((b"{", "json_invalid"), (b"[]", "body_not_event"), (b'{"data":[]}', "event_data_invalid")),
    ),
    "POST /v1/signals": Route(
        body={"signal": "nobody", "data": 1},
        status=404,  # Nobody waits.
        refuses=((b"{", "json_invalid"), (b"[]", "field_invalid"), (b'{"signal":7}', "field_invalid")),
    ),
    "GET /v1/cancellations": Route(),
    "POST /v1/cancellations": Route(
        body={"function_id": "shop-order", "started_before": "2020-01-01T00:00:00Z"},
        refuses=((b"{", "json_invalid"), (b"[]", "field_invalid"), (b'{"function_id":"shop-order"}', "field_invalid")),
    ),
    "DELETE /v1/cancellations/{order_id}": Route({"order_id": "order"}),
    "POST /v1/checkpoint/{run_id}/async": Route(
        _RUN, body=_CHECKPOINT, refuses=((b"{", "checkpoint_invalid"), (b"[]", "checkpoint_invalid"), (b"", "checkpoint_invalid"))
    ),
    **{f"{key.split()[0]} {prefix}{key.split()[1]}": route for key, route in V2.items() for prefix in ("/v2", "/api/v2")},
}  # fmt: skip
CLOSED = [key for key, route in ROUTES.items() if not route.is_open]
WITH_IDS = [key for key, route in ROUTES.items() if route.ids]
WITH_BODY = [(key, body, code) for key, route in ROUTES.items() for body, code in route.refuses]

QUERIES = [
    ("/v1/events?limit=x", 400, "field_invalid"),
    ("/v1/events?limit=0", 400, "field_invalid"),
    ("/v1/events?limit=-1", 400, "field_invalid"),
    ("/v1/events?limit=9999999999999999999999", 200, None),
    ("/v1/events?cursor=nonsense", 400, "cursor_invalid"),
    ("/v1/events?cursor=" + UNKNOWN["event"], 400, "cursor_invalid"),
    ("/v1/events?received_after=yesterday", 400, "field_invalid"),
    ("/v1/events?received_before=99999999999999999999", 400, "field_invalid"),
    ("/v1/events?name=%00", 400, "field_invalid"),
    ("/v1/events?name=" + "a" * 600, 400, "field_invalid"),
    ("/v2/runs?limit=1000", 200, None),
    ("/v2/runs?limit=many", 400, "field_invalid"),
    ("/v2/runs?status=GREEN", 400, "field_invalid"),
    ("/v2/runs?order=SIDEWAYS", 400, "field_invalid"),
    ("/v2/runs?timeField=BORN_AT", 400, "field_invalid"),
    ("/v2/runs?from=x", 400, "field_invalid"),
    ("/v2/runs?from=0001-01-01T00:00:00Z", 400, "field_invalid"),
    ("/v2/runs?until=9999-12-31T23:59:59Z", 400, "field_invalid"),
    ("/v2/runs?appId=%00", 400, "field_invalid"),
    ("/v2/runs?functionId=" + "&functionId=".join("ab" for _ in range(101)), 400, "field_invalid"),
    ("/v2/runs?cursor=AAAA", 400, "cursor_invalid"),
    ("/v2/runs?cursor=%F0%9F%92%A9", 400, "cursor_invalid"),
    ("/v2/runs?nobody=asks", 200, None),
]
NOTHING = (
    "/v0/gql", "/v0/connect/start", "/v0/connect/flush", "/v0/x", "/v1/traces/userland", "/v1/realtime/token",
    "/v1/realtime/connect", "/v1/prom", "/v1/x", "/v2/insights/tables", "/v2/x", "/api/v2/x", "/api/x",
    "/v0/connect", "/v1/realtime/sse", "/v1/realtime/publish/tee",
    # What real SDKs were recorded to ask for when they publish.
    *(
        request["path"]
        for _, exchange in exchanges("capture-realtime-ts4.json")
        for request in exchange.get("sdk_requests", [])
        if request["path"].startswith("/v1/realtime/")
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_PATIENCE_S", 0.1)


@pytest.fixture(scope="module")
def tenants() -> dict[str, tuple[LookAlike, LookAlike]]:
    return {}


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()


@pytest.fixture
async def both(
    database: str, pool: Pool, tenants: dict[str, tuple[LookAlike, LookAlike]]
) -> tuple[LookAlike, LookAlike]:
    if database not in tenants:
        tenants[database] = (await look_alike(database, pool), await look_alike(database, pool))
    return tenants[database]


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    async with running(settings_for(database, STEPWELL_ALLOW_PRIVATE_APPS="1")) as client:
        yield client


def path_of(key: str, ids: dict[str, str]) -> str:
    """The path of a route with its places filled."""
    return re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], key.split()[1])


def code_of(answer: Any) -> str | None:
    """The code of a refusal, in whichever shape."""
    said = answer.json()
    code: str | None = said["errors"][0]["code"] if "errors" in said else said.get("code")
    return code


def shape_is_right(answer: Any, path: str) -> None:
    """A refusal has the shape of its reader, an id, and tells nothing it must not."""
    said = answer.json()
    if path.startswith(("/v2", "/api")):
        assert set(said) == {"errors", "request_id"}
    else:
        assert {"error", "status", "data", "code", "details", "request_id"} == set(said)
        assert isinstance(said["error"], str)
        assert said["status"] == answer.status_code
    assert said["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def without_id(answer: Any) -> dict[str, Any]:
    """The body but for the id of the request."""
    return {key: value for key, value in answer.json().items() if key != "request_id"}


async def ask(
    client: Client, key: str, ids: dict[str, str], headers: dict[str, str], *, content: bytes | None = None
) -> Any:
    """Ask an address as its entry says."""
    route = ROUTES[key]
    if content is None and route.body is not None:
        content = json.dumps(route.body).encode()
    return await client.request(key.split(maxsplit=1)[0], path_of(key, ids), headers=headers, content=content)


def test_every_route_of_the_api_has_an_entry() -> None:
    app = create_app(settings_for("postgresql://nobody@127.0.0.1:1/none"))
    found = {
        f"{method} {route.path_format}"
        for route in app.routes
        if isinstance(route, HTTPRoute)
        and re.match(r"/(v\d|fn|invoke|dev|api/v\d)(/|$)", route.path_format)
        and route.path_format != "/dev/ui"
        for method in route.methods - {"OPTIONS", "HEAD"}
    }
    assert found == set(ROUTES)


@pytest.mark.parametrize("key", CLOSED)
async def test_without_a_known_key_nothing_is_answered(
    client: Client, both: tuple[LookAlike, LookAlike], key: str
) -> None:
    mine = both[0]
    ids = {place: mine.id_of(kind) for place, kind in ROUTES[key].ids.items()}
    for value in ("", "Bearer ", "Bearer signkey-prod-" + "0" * 64, f"Basic {mine.signing_key}", "Bearer " + "x" * 600,
                  f"Bearer {mine.event_key}", "Bearer \u00ff"):  # fmt: skip
        headers = {"authorization": value.encode("latin-1").decode("latin-1")} if value else {}
        answer = await client.request(
            key.split(maxsplit=1)[0],
            path_of(key, ids),
            headers=[(k.encode(), v.encode("latin-1")) for k, v in headers.items()],
        )
        assert (answer.status_code, code_of(answer)) == (401, "unauthenticated")
        shape_is_right(answer, path_of(key, ids))


@pytest.mark.parametrize("key", ROUTES)
async def test_asked_well_it_answers_and_shows_nothing_of_the_other_tenant(
    client: Client, both: tuple[LookAlike, LookAlike], key: str
) -> None:
    mine, theirs = both
    ids = {place: mine.id_of(kind) for place, kind in ROUTES[key].ids.items()}
    answer = await ask(client, key, ids, mine.bearer)
    assert answer.status_code == ROUTES[key].status, answer.text
    assert [secret for secret in theirs.secrets if secret in answer.text] == []
    assert mine.signing_key not in answer.text
    assert mine.event_key not in answer.text


@pytest.mark.parametrize("key", WITH_IDS)
async def test_what_is_unknown_malformed_or_of_another_tenant_looks_the_same(
    client: Client, both: tuple[LookAlike, LookAlike], key: str
) -> None:
    mine, theirs = both
    route = ROUTES[key]
    bodies = []
    last = list(route.ids)[-1]
    good = {place: mine.id_of(kind) for place, kind in route.ids.items()}
    for bad in (UNKNOWN[route.ids[last]], theirs.id_of(route.ids[last]), *MALFORMED):
        answer = await ask(client, key, good | {last: bad}, mine.bearer)
        assert answer.status_code == (404 if route.missing[0] == 200 and bad in MALFORMED else route.missing[0]), bad
        if answer.status_code == 200:
            assert answer.json()["data"] == []
            continue
        assert code_of(answer) == (route.missing[1] or "not_found") or bad in MALFORMED
        shape_is_right(answer, path_of(key, good))
        bodies.append(without_id(answer))
    if route.missing[0] == 404:
        assert bodies[0] == bodies[1], "a foreign id must look like an unknown one"


@pytest.mark.parametrize("key", ROUTES)
async def test_a_method_that_is_not_taken_is_refused_with_those_that_are(
    client: Client, both: tuple[LookAlike, LookAlike], key: str
) -> None:
    mine = both[0]
    ids = {place: mine.id_of(kind) for place, kind in ROUTES[key].ids.items()}
    answer = await client.request("PATCH", path_of(key, ids), headers=mine.bearer)
    assert (answer.status_code, code_of(answer)) == (405, "method_not_allowed")
    assert key.split(maxsplit=1)[0] in answer.headers["allow"]


@pytest.mark.parametrize(("key", "body", "code"), WITH_BODY)
async def test_a_body_that_cannot_be_used_is_refused_by_code(
    client: Client, both: tuple[LookAlike, LookAlike], key: str, body: bytes, code: str
) -> None:
    mine = both[0]
    ids = {place: mine.id_of(kind) for place, kind in ROUTES[key].ids.items()}
    answer = await ask(client, key, ids, mine.bearer, content=body)
    assert (answer.status_code, code_of(answer)) == (400, code)
    shape_is_right(answer, path_of(key, ids))


@pytest.mark.parametrize("key", [key for key, route in ROUTES.items() if route.refuses])
async def test_a_body_over_the_limit_is_refused(client: Client, both: tuple[LookAlike, LookAlike], key: str) -> None:
    mine = both[0]
    ids = {place: mine.id_of(kind) for place, kind in ROUTES[key].ids.items()}
    answer = await ask(client, key, ids, mine.bearer, content=b'{"a":"' + b"x" * TOO_LARGE + b'"}')
    assert (answer.status_code, code_of(answer)) == (413, "body_too_large")


@pytest.mark.parametrize(("path", "status", "code"), QUERIES)
async def test_a_query_that_cannot_be_used_is_refused_by_code(
    client: Client, both: tuple[LookAlike, LookAlike], path: str, status: int, code: str | None
) -> None:
    answer = await client.get(path, headers=both[0].bearer)
    assert answer.status_code == status, answer.text
    if code is not None:
        assert code_of(answer) == code
        shape_is_right(answer, path)


@pytest.mark.parametrize("path", NOTHING)
async def test_what_is_not_served_is_not_found_in_the_shape_of_machines(client: Client, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await client.request(method, path)
        assert (answer.status_code, code_of(answer)) == (404, "not_found")
        shape_is_right(answer, path)


DOOR = [
    ("POST", "/e/unknown", b"{}", {}, 401, "event_key_invalid"),
    ("POST", "/e/", b"{}", {}, 401, "event_key_invalid"),
    ("POST", "/e/" + "x" * 600, b"{}", {}, 401, "event_key_invalid"),
    ("GET", "", b"", {}, 405, "method_not_allowed"),
    ("DELETE", "", b"", {}, 405, "method_not_allowed"),
    ("POST", "", b"x", {"content-encoding": "gzip"}, 415, "content_encoding_unsupported"),
    ("POST", "", b"", {}, 400, "body_empty"),
    ("POST", "", b"  \n", {}, 400, "body_empty"),
    ("POST", "", b"{", {}, 400, "json_invalid"),
    ("POST", "", b'{"name":"a"} x', {}, 400, "json_invalid"),
    ("POST", "", b'\xef\xbb\xbf{"name":"a"}', {}, 400, "json_invalid"),
    ("POST", "", b'{"name":"\xff"}', {}, 400, "json_encoding"),
    ("POST", "", b'{"name":"a","data":{"x":"\\ud800"}}', {}, 400, "json_encoding"),
    ("POST", "", b'{"name":"a","data":{"x":1e999}}', {}, 400, "json_number_range"),
    ("POST", "", b'{"name":"a","data":{"x":' + b"9" * 41 + b"}}", {}, 400, "json_number_range"),
    ("POST", "", b'{"name":"a","data":' + b'{"x":' * 70 + b"1" + b"}" * 70 + b"}", {}, 400, "json_too_deep"),
    ("POST", "", b'{"name":"a","data":{"x":[' + b"0," * 100_000 + b"0]}}", {}, 400, "json_too_complex"),
    ("POST", "", b"7", {}, 400, "body_not_event"),
    ("POST", "", b"[]", {}, 400, "body_not_event"),
    ("POST", "", b'[{"name":"a"},7]', {}, 400, "body_not_event"),
    ("POST", "", b"{}", {}, 400, "event_name_invalid"),
    ("POST", "", b'{"name":""}', {}, 400, "event_name_invalid"),
    ("POST", "", b'{"name":7}', {}, 400, "event_name_invalid"),
    ("POST", "", b'{"name":"a\\u0007"}', {}, 400, "event_name_invalid"),
    ("POST", "", b'{"name":"' + b"n" * 513 + b'"}', {}, 400, "event_name_invalid"),
    ("POST", "", b'{"name":"InnGest/x"}', {}, 400, "event_name_reserved"),
    ("POST", "", b'{"name":"a","data":7}', {}, 400, "event_data_invalid"),
    ("POST", "", b'{"name":"a","ts":1}', {}, 400, "event_ts_invalid"),
    ("POST", "", b'{"name":"a","ts":1.5}', {}, 400, "event_ts_invalid"),
    ("POST", "", b'{"name":"a","id":7}', {}, 400, "event_id_invalid"),
    ("POST", "", b'{"name":"a","id":"' + b"i" * 257 + b'"}', {}, 400, "event_id_invalid"),
    ("POST", "", b'{"name":"a","data":{"x":"' + b"x" * (3 * 1024 * 1024) + b'"}}', {}, 413, "event_too_large"),
    ("POST", "", b'{"name":"' + b"x" * TOO_LARGE, {}, 413, "body_too_large"),
    ("POST", "", b"[" + b'{"name":"a"},' * 5000 + b'{"name":"a"}]', {}, 400, "too_many_events"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), DOOR)
async def test_the_door_for_events_refuses_by_code_and_stores_nothing(
    client: Client, both: tuple[LookAlike, LookAlike], pool: Pool, method: str, path: str, body: bytes,
    headers: dict[str, str], status: int, code: str,
) -> None:  # fmt: skip
    async with pool.acquire() as connection:
        before = await connection.fetchval("select count(*) from events")
        answer = await client.request(method, path or f"/e/{both[0].event_key}", content=body, headers=headers)
        said = answer.json()
        assert (answer.status_code, said["code"], said["status"], said["ids"]) == (status, code, status, [])
        assert isinstance(said["error"], str)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert said["request_id"] == answer.headers["x-request-id"]
        if status == 405:
            assert "POST" in answer.headers["allow"]
        assert await connection.fetchval("select count(*) from events") == before


async def test_one_bad_event_refuses_the_whole_list_and_says_which(
    client: Client, both: tuple[LookAlike, LookAlike]
) -> None:
    answer = await client.post(f"/e/{both[0].event_key}", content=b'[{"name":"a"},{"name":"b"},{"name":""}]')
    assert (answer.status_code, answer.json()["details"]["index"]) == (400, 2)


async def test_odd_but_sound_content_comes_back_as_it_was(client: Client, both: tuple[LookAlike, LookAlike]) -> None:
    data = {"nul": "\x00", "__proto__": {"a": 1}, "html": "<script>alert(1)</script>", "long": "x" * 1_000_000}
    body = json.dumps({"name": "odd", "data": data}).replace('"html"', '"twice": 1, "twice": 2, "html"')
    sent = await client.post(f"/e/{both[0].event_key}", content=body.encode())
    assert sent.status_code == 200
    seen = await client.get(f"/v1/events/{sent.json()['ids'][0]}", headers=both[0].bearer)
    assert seen.json()["data"]["data"] == data | {"twice": 2}


async def test_a_cursor_of_another_tenant_or_list_opens_nothing(
    client: Client, both: tuple[LookAlike, LookAlike]
) -> None:
    mine, theirs = both
    cursor = (await client.get("/v2/runs?limit=1", headers=theirs.bearer)).json()["page"]["cursor"]
    assert cursor
    for query, bearer in ((f"cursor={cursor}", mine.bearer), (f"order=ASC&cursor={cursor}", theirs.bearer),
                          (f"cursor={cursor[:-3]}AAA", theirs.bearer)):  # fmt: skip
        answer = await client.get(f"/v2/runs?{query}", headers=bearer)
        assert (answer.status_code, code_of(answer)) == (400, "cursor_invalid")
    assert (await client.get(f"/v2/runs?cursor={cursor}", headers=theirs.bearer)).status_code == 200
    event = theirs.event_id
    assert (await client.get(f"/v1/events?cursor={event}", headers=mine.bearer)).status_code == 400
