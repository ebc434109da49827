"""Every failure has one answer per kind of reader, and none tells what it must not."""

import pytest

from app.domain.errors import Refused
from app.web.audience import Audience
from app.web.errors import body_of, fault_of
from tests.integration.web.site import SECRET_TEXT, Client

STATUSES = [
    ("key", 401, "event_key_invalid"),
    ("index", 400, "event_name_invalid"),
    ("large", 413, "body_too_large"),
    ("rate", 429, "rate_limited"),
    ("outside", 503, "storage_unavailable"),
    ("broken", 500, "outside_failed"),
    ("bug", 500, "internal"),
    ("crash", 500, "internal"),
    ("lost", 503, "storage_unavailable"),
    ("slow", 503, "storage_unavailable"),
    ("closed", 503, "storage_unavailable"),
    ("late", 503, "storage_unavailable"),
    ("sql", 500, "internal"),
]


@pytest.mark.parametrize(("fault", "status", "code"), STATUSES)
async def test_each_failure_has_its_status_and_code_in_every_shape(
    client: Client, fault: str, status: int, code: str
) -> None:
    for prefix in ("/v1", "/v2", ""):
        answer = await client.get(f"{prefix}/fail/{fault}")
        assert answer.status_code == status
        assert SECRET_TEXT not in answer.text
        assert answer.headers["x-request-id"] in answer.text
        if prefix:
            body = answer.json()
            assert (body["errors"][0] if prefix == "/v2" else body)["code"] == code
        else:
            assert answer.headers["content-type"].startswith("text/html")


def test_each_kind_of_machine_has_its_own_shape() -> None:
    fault = fault_of(Refused("event_name_invalid", "event name is empty", {"index": 3}))
    assert body_of(Audience.EVENTS, fault, "r1") == {
        "ids": [],
        "status": 400,
        "error": "event name is empty",
        "code": "event_name_invalid",
        "details": {"index": 3},
        "request_id": "r1",
    }
    assert body_of(Audience.SDK, fault, "r1") == {
        "error": "event name is empty",
        "status": 400,
        "data": None,
        "code": "event_name_invalid",
        "details": {"index": 3},
        "request_id": "r1",
    }
    assert body_of(Audience.API, fault, "r1") == {
        "errors": [{"code": "event_name_invalid", "message": "event name is empty", "details": {"index": 3}}],
        "request_id": "r1",
    }


async def test_whoever_is_held_back_is_told_for_how_long(client: Client) -> None:
    assert (await client.get("/v1/fail/rate")).headers["retry-after"] == "17"
    assert 1 <= int((await client.get("/v1/fail/closed")).headers["retry-after"]) <= 5


async def test_a_method_that_is_not_taken_is_named_with_those_that_are(client: Client) -> None:
    answer = await client.put("/v1/fail/key")
    assert answer.status_code == 405
    assert answer.json()["code"] == "method_not_allowed"
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/nothing", "/v2/nothing", "/nothing", "/static/nothing.css"])
async def test_unknown_paths_have_the_headers_of_known_ones(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-inngest-server-kind"] == "cloud"
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.headers["x-request-id"]) == 24


async def test_a_partial_request_gets_a_fragment(client: Client) -> None:
    page = await client.get("/fail/bug")
    part = await client.get("/fail/bug", headers={"hx-request": "true", "hx-request-type": "partial"})
    assert "<html" in page.text
    assert "<html" not in part.text
    assert part.status_code == 500
    assert 'role="alert"' in part.text


async def test_pages_carry_the_policy_and_machines_are_spared(client: Client) -> None:
    page = await client.get("/login")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store"
    assert "content-security-policy" not in (await client.get("/v1/fail/key")).headers
    assert "strict-transport-security" not in page.headers


async def test_two_requests_have_two_ids_whatever_the_client_sends(client: Client) -> None:
    ids = {(await client.get("/login", headers={"x-request-id": "mine"})).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert "mine" not in ids
