"""The APIs by which SDKs move runs: signals, invokes, cancellations; good input, bad input, other tenants."""

from typing import Any

import pytest

from app.domain.protocol.registration import read_registration
from app.engine.sync import checks, register
from app.store.db import Pool
from tests.integration.accounts.world import Tenant, new_tenant, scope_of
from tests.integration.web.site import Client

PAST = "2020-01-01T00:00:00Z"
NOBODY = "01HQRNRNRNRNRNRNRNRNRNRNRN"


async def _with_function(database: str, pool: Pool) -> tuple[Tenant, dict[str, str]]:
    """A tenant with the function `shop-pay`, and the header by which its SDK is known."""
    made = await new_tenant(database)
    body = (
        b'{"url":"http://app.test/api/inngest","sdk":"js:v4.24.0","appName":"shop","framework":"t","functions":[{"id":'
        b'"shop-pay","name":"Pay","triggers":[{"event":"order/made"}],"steps":{"step":{"id":"step","name":"step",'
        b'"runtime":{"type":"http","url":"http://app.test/api/inngest?fnId=shop-pay&stepId=step"}}}}]}'
    )
    await register(pool, scope_of(made), read_registration(body, checks=checks()), kind="out_of_band")
    return made, {"authorization": f"Bearer {made['signing_key']}"}


async def test_an_invoke_stores_the_event_of_its_function_once_for_each_seed(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made, bearer = await _with_function(database, engine_pool)
    seed = {"x-inngest-event-id-seed": "1743130137367,eii2YKXRVTJPuA=="}
    first = await client.post("/invoke/shop-pay", json={"data": {"n": 1}}, headers=bearer | seed)
    again = await client.post("/invoke/shop-pay", json={"data": {"n": 1}}, headers=bearer | seed)
    assert (first.status_code, first.json()["status"]) == (200, 200)
    assert first.json()["id"] == again.json()["id"]
    rows = await engine_pool.fetch("select name from events where environment_id = $1", scope_of(made).environment_id)
    assert [row["name"] for row in rows] == ["inngest/function.invoked"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/invoke/shop-nowhere", {}, 404, "not_found"),
        ("POST", "/invoke/shop-pay", [], 400, "body_not_event"),
        ("POST", "/invoke/shop-pay", {"data": 1}, 400, "event_data_invalid"),
        ("POST", "/invoke/shop-pay", {"ts": "soon"}, 400, "event_ts_invalid"),
        ("POST", "/v1/signals", {"signal": "nobody", "data": 1}, 404, "not_found"),
        ("POST", "/v1/signals", {"data": 1}, 400, "field_invalid"),
        ("POST", "/v1/signals", {"signal": ""}, 400, "field_invalid"),
        ("POST", "/v1/signals", {"signal": "a\x00b"}, 400, "field_invalid"),
        ("POST", "/v1/signals", {"signal": ["a"]}, 400, "field_invalid"),
        ("POST", "/v1/signals", [1], 400, "field_invalid"),
        ("POST", "/v1/cancellations", [], 400, "field_invalid"),
        ("POST", "/v1/cancellations", {"function_id": "shop-pay"}, 400, "field_invalid"),
        ("POST", "/v1/cancellations", {"function_id": "shop-pay", "started_before": 7}, 400, "field_invalid"),
        ("POST", "/v1/cancellations", {"function_id": "shop-pay", "started_before": "x"}, 400, "field_invalid"),
        (
            "POST",
            "/v1/cancellations",
            {"function_id": "shop-pay", "started_before": "2099-01-01T00:00:00Z"},
            400,
            "field_invalid",
        ),
        (
            "POST",
            "/v1/cancellations",
            {"function_id": "shop-pay", "started_before": PAST, "started_after": "2021-01-01T00:00:00Z"},
            400,
            "field_invalid",
        ),
        (
            "POST",
            "/v1/cancellations",
            {"function_id": "shop-pay", "started_before": PAST, "if": "event.data.("},
            400,
            "expression_invalid",
        ),
        (
            "POST",
            "/v1/cancellations",
            {"function_id": "shop-pay", "started_before": PAST, "if": 1},
            400,
            "field_invalid",
        ),
        ("POST", "/v1/cancellations", {"function_id": "nowhere", "started_before": PAST}, 404, "not_found"),
        (
            "POST",
            "/v1/cancellations",
            {"app_id": "other", "function_id": "shop-pay", "started_before": PAST},
            404,
            "not_found",
        ),
        ("GET", "/v1/cancellations?cursor=x", None, 400, "cursor_invalid"),
        ("DELETE", f"/v1/cancellations/{NOBODY}", None, 404, "not_found"),
        ("DELETE", "/v1/cancellations/x", None, 404, "not_found"),
    ],
)
async def test_bad_input_gets_its_code_in_the_shape_sdks_read(
    client: Client, database: str, engine_pool: Pool, method: str, path: str, body: Any, status: int, code: str
) -> None:
    _, bearer = await _with_function(database, engine_pool)
    answer = await client.request(method, path, json=body, headers=bearer)
    told = answer.json()
    assert (answer.status_code, told["status"], told["code"]) == (status, status, code)
    assert isinstance(told["error"], str) and told["data"] is None
    assert (await client.request(method, path, json=body)).status_code == 401


async def test_a_body_that_is_no_json_is_refused(client: Client, database: str, engine_pool: Pool) -> None:
    _, bearer = await _with_function(database, engine_pool)
    for path in ("/invoke/shop-pay", "/v1/signals", "/v1/cancellations"):
        answer = await client.post(path, content=b"{", headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (400, "json_invalid")


async def test_an_order_is_shown_listed_and_withdrawn_by_its_own_tenant_only(
    client: Client, database: str, engine_pool: Pool
) -> None:
    made, bearer = await _with_function(database, engine_pool)
    _, stranger = await _with_function(database, engine_pool)
    wanted = {"app_id": "shop", "function_id": "pay", "started_before": PAST, "if": "event.data.n > 1"}
    placed = (await client.post("/v1/cancellations", json=wanted, headers=bearer)).json()["data"]
    assert (placed["function_id"], placed["app_id"], placed["if"], placed["kind"], placed["cause"]) == (
        "shop-pay",
        "shop",
        "event.data.n > 1",
        "bulk_run",
        "api",
    )
    assert (placed["started_before"], placed["started_after"], placed["environment_id"]) == (
        PAST,
        None,
        str(scope_of(made).environment_id),
    )
    path = f"/v1/cancellations/{placed['id']}"
    assert (await client.get("/v1/cancellations", headers=bearer)).json()["data"] == [placed]
    assert (await client.get("/v1/cancellations", headers=stranger)).json()["data"] == []
    assert (await client.get(f"/v1/cancellations?cursor={placed['id']}", headers=bearer)).json()["data"] == []
    assert (await client.delete(path, headers=stranger)).status_code == 404
    assert (await client.delete(path, headers=bearer)).json()["data"] == {"ok": True}
    assert (await client.delete(path, headers=bearer)).status_code == 404
    assert (await client.get("/v1/cancellations", headers=bearer)).json()["data"] == []
