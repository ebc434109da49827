"""The endpoint's manners: who may ask, introspection, sync both ways, unreadable calls, state fetched from the API."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sdk_world import RUN_ID, SIGNING_KEY, Engine, Request, call_asgi, connect, make_client

import stepwell
from stepwell import Backoff, Concurrency, Context, Cron, Event, Step, _signature
from stepwell.serve import AsgiApp

OTHER_KEY = "signkey-test-fedcba9876543210"
URL = "/api/inngest"


def make_app(**settings: Any) -> tuple[AsgiApp, stepwell.Client]:
    client = make_client(**settings)

    async def failed(ctx: Context, step: Step) -> None: ...

    @client.function(
        id="order",
        name="Order",
        trigger=[Event("shop/order.placed", if_="event.data.total > 0"), Cron("0 9 * * 1")],
        retries=7,
        concurrency=Concurrency(5, key="event.data.user"),
        on_failure=failed,
    )
    async def order(ctx: Context, step: Step) -> list[Any]:
        return [await step.run("a", lambda: 1), len(ctx.events)]

    return stepwell.serve.asgi(client), client


def signed(body: bytes = b"{}", key: str = SIGNING_KEY) -> dict[str, str]:
    return {"x-inngest-signature": _signature.sign(key, body)}


def make_signed_app(**settings: Any) -> tuple[AsgiApp, stepwell.Client]:
    return make_app(is_dev=False, signing_key=SIGNING_KEY, signing_key_fallback=OTHER_KEY, **settings)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_strangers_are_refused_in_signed_mode(method: str) -> None:
    app, _ = make_signed_app()
    wrong = signed(key="signkey-test-00")
    for headers in ({}, wrong, signed(b"other body")):
        answer = call_asgi(app, method, f"{URL}?fnId=app-order", b"{}", headers)
        assert (answer.status, answer.content) == (401, {"message": "Unauthorized"})
        assert answer.headers["x-inngest-sdk-handled"] == "true"
        assert "x-inngest-sdk" not in answer.headers


@pytest.mark.parametrize("key", [SIGNING_KEY, OTHER_KEY])
def test_an_answer_is_signed_with_the_key_that_signed_the_request(key: str) -> None:
    app, _ = make_signed_app()
    body = Engine(app, "app-order").body_of("step", 0)
    answer = call_asgi(app, "POST", f"{URL}?fnId=app-order&stepId=step", body, signed(body, key))
    assert answer.status == 206
    assert _signature.verify(answer.headers["x-inngest-signature"], answer.body, [key]) == key


def test_dev_mode_checks_and_signs_nothing() -> None:
    app, _ = make_app(signing_key=SIGNING_KEY)
    body = Engine(app, "app-order").body_of("step", 0)
    answer = call_asgi(app, "POST", f"{URL}?fnId=app-order&stepId=step", body, signed(b"something else"))
    assert answer.status == 206
    assert "x-inngest-signature" not in answer.headers


def test_serving_without_a_signing_key_is_refused_outside_dev_mode() -> None:
    with pytest.raises(stepwell.ConfigError, match="INNGEST_SIGNING_KEY"):
        make_app(is_dev=False)


def test_every_answer_says_which_sdk_speaks() -> None:
    app, _ = make_app(env="branch")
    for method in ("GET", "PATCH"):
        headers = call_asgi(app, method, URL).headers
        assert headers["x-inngest-sdk"] == f"stepwell-py:v{stepwell.__version__}"
        assert headers["x-inngest-req-version"] == "2"
        assert headers["x-inngest-sdk-handled"] == "true"
        assert headers["x-inngest-framework"] == "asgi"
        assert headers["x-inngest-env"] == "branch"
        assert headers["x-inngest-expected-server-kind"] == "dev"


def test_introspection_tells_strangers_little_and_the_server_more() -> None:
    app, _ = make_app()
    public = call_asgi(app, "GET", URL).content
    assert (public["schema_version"], public["function_count"], public["mode"]) == ("2024-05-24", 1, "dev")
    assert public["has_signing_key"] is False
    assert "app_id" not in public

    app, _ = make_signed_app(event_key="my-event-key")
    answer = call_asgi(app, "GET", URL, b"", signed(b""))
    assert answer.content["authentication_succeeded"] is True
    assert answer.content["app_id"] == "app"
    assert answer.content["event_key_hash"].startswith("756db345")
    assert answer.content["signing_key_hash"] == _signature.hash_key(SIGNING_KEY)
    assert answer.content["signing_key_fallback_hash"] == _signature.hash_key(OTHER_KEY)


REGISTERED = [
    {
        "id": "app-order",
        "name": "Order",
        "triggers": [
            {"event": "shop/order.placed", "expression": "event.data.total > 0"},
            {"cron": "0 9 * * 1"},
        ],
        "concurrency": [{"limit": 5, "scope": "fn", "key": "event.data.user"}],
        "steps": {
            "step": {
                "id": "step",
                "name": "step",
                "retries": {"attempts": 7},
                "runtime": {"type": "http", "url": "http://app.test/api/inngest?fnId=app-order&stepId=step"},
            }
        },
    },
    {
        "id": "app-order-failure",
        "name": "Order (failure)",
        "triggers": [
            {"event": "inngest/function.failed", "expression": "event.data.function_id == 'app-order'"},
        ],
        "steps": {
            "step": {
                "id": "step",
                "name": "step",
                "retries": {"attempts": 0},
                "runtime": {"type": "http", "url": "http://app.test/api/inngest?fnId=app-order-failure&stepId=step"},
            }
        },
    },
]


def test_an_out_of_band_sync_registers_with_the_server_and_passes_on_its_answer() -> None:
    app, client = make_app()
    server = connect(client, lambda _: (200, {"ok": True, "modified": True}))

    answer = call_asgi(app, "PUT", f"{URL}?deployId=d1", b"{}", {"x-inngest-server-kind": "dev"})

    assert (answer.status, answer.content) == (200, {"message": "Successfully registered", "modified": True})
    assert answer.headers["x-inngest-sync-kind"] == "out_of_band"
    request = server.requests[0]
    assert (request.method, request.url) == ("POST", "http://server.test/fn/register?deployId=d1")
    assert request.headers["x-inngest-expected-server-kind"] == "dev"
    assert request.body["functions"] == REGISTERED
    assert (request.body["url"], request.body["appName"]) == ("http://app.test/api/inngest", "app")
    assert request.body["sdk"] == f"stepwell-py:v{stepwell.__version__}"


def test_an_unsigned_sync_in_signed_mode_only_makes_the_app_register_with_its_own_server() -> None:
    app, client = make_signed_app()
    server = connect(client, lambda _: (200, {"ok": True, "modified": False}))

    assert call_asgi(app, "PUT", URL).status == 200
    assert server.requests[0].headers["authorization"] == f"Bearer {_signature.bearer(SIGNING_KEY)}"
    assert call_asgi(app, "PUT", URL, b"{}", signed(b"x")).status == 401
    assert call_asgi(app, "PUT", URL, b"{}", {"x-inngest-sync-kind": "in_band"}).status == 401


def test_a_key_the_server_does_not_know_is_followed_by_the_fallback() -> None:
    app, client = make_signed_app()
    primary = f"Bearer {_signature.bearer(SIGNING_KEY)}"

    def respond(request: Request) -> tuple[int, Any]:
        return (401, {"error": "no"}) if request.headers["authorization"] == primary else (200, {"ok": True})

    server = connect(client, respond)
    assert call_asgi(app, "PUT", URL).status == 200
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "content", "told"), [(400, {"error": "bad config"}, (400, "bad config")), (0, {}, (500, "reached"))]
)
def test_a_failed_sync_says_why(status: int, content: Any, told: tuple[int, str]) -> None:
    app, client = make_app()
    connect(client, lambda _: (status, content))
    answer = call_asgi(app, "PUT", URL)
    assert answer.status == told[0]
    assert told[1] in answer.content["message"]
    assert answer.content["modified"] is False


def test_a_server_of_the_other_kind_is_told_what_to_change() -> None:
    app, _ = make_app()
    answer = call_asgi(app, "PUT", URL, b"{}", {"x-inngest-server-kind": "cloud"})
    assert (answer.status, answer.content["code"]) == (400, "server_kind_mismatch")
    assert "INNGEST_DEV" in answer.content["message"]


@pytest.mark.parametrize("make", [make_app, make_signed_app])
def test_an_in_band_sync_answers_with_the_functions_at_the_address_the_server_uses(
    make: Callable[[], tuple[AsgiApp, stepwell.Client]],
) -> None:
    app, _ = make()
    body = json.dumps({"url": "https://public.test/api/inngest"}).encode()
    answer = call_asgi(app, "PUT", URL, body, {"x-inngest-sync-kind": "in_band", **signed(body)})

    assert answer.status == 200
    assert answer.headers["x-inngest-sync-kind"] == "in_band"
    content = answer.content
    assert content["url"] == "https://public.test/api/inngest"
    assert (
        content["functions"][0]["steps"]["step"]["runtime"]["url"]
        == "https://public.test/api/inngest?fnId=app-order&stepId=step"
    )
    assert (content["app_id"], content["sdk_language"], content["sdk_author"]) == ("app", "stepwell-py", "stepwell")
    assert content["inspection"]["authentication_succeeded"] is True


def test_the_trust_probe_runs_no_function() -> None:
    app, _ = make_signed_app()
    answer = call_asgi(app, "POST", f"{URL}?probe=trust", b"{}", signed())
    assert (answer.status, answer.content) == (200, {})
    assert "x-inngest-signature" in answer.headers
    assert call_asgi(app, "POST", f"{URL}?probe=trust", b"{}").status == 401


@pytest.mark.parametrize(
    ("query", "body", "name"),
    [
        ("fnId=app-gone", b"{}", "FunctionNotFound"),
        ("", b"{}", "FunctionNotFound"),
        ("fnId=app-order", b"{", "MalformedCall"),
        ("fnId=app-order", b"[]", "MalformedCall"),
        ("fnId=app-order", b'{"ctx":{}}', "MalformedCall"),
        ("fnId=app-order", b'{"ctx":{"run_id":"r"},"steps":[1]}', "MalformedCall"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_refused_and_may_be_retried(query: str, body: bytes, name: str) -> None:
    app, _ = make_app()
    answer = call_asgi(app, "POST", f"{URL}?{query}", body)
    assert (answer.status, answer.content["name"]) == (500, name)
    assert answer.headers["x-inngest-no-retry"] == "false"


def test_a_call_with_the_least_a_server_may_send_is_answered() -> None:
    app, _ = make_app()
    answer = call_asgi(app, "POST", f"{URL}?fnId=order", b'{"ctx":{"run_id":"r","stack":null},"event":{"name":"x"}}')
    assert answer.content[0]["op"] == "StepRun"


def test_state_too_large_to_send_is_fetched_with_the_fallback_key_if_need_be() -> None:
    app, client = make_signed_app()
    step = {"86f7e437faa5a7fce15d1ddcb9eaeaea377667b8": {"data": "fetched"}}
    primary = f"Bearer {_signature.bearer(SIGNING_KEY)}"

    def respond(request: Request) -> tuple[int, Any]:
        if request.headers["authorization"] == primary:
            return 403, {"error": "no"}
        return 200, [{"name": "x"}, {"name": "y"}] if request.url.endswith("/batch") else step

    server = connect(client, respond)
    body = json.dumps({"ctx": {"run_id": RUN_ID}, "event": {"name": "x"}, "events": [], "steps": {}, "use_api": True})
    answer = call_asgi(app, "POST", f"{URL}?fnId=app-order&stepId=step", body.encode(), signed(body.encode()))

    assert (answer.status, answer.content) == (200, ["fetched", 2])
    assert server.requests[1].url == f"http://server.test/v0/runs/{RUN_ID}/batch"


def test_a_run_whose_state_is_gone_is_refused_and_may_be_retried() -> None:
    app, client = make_app()
    connect(client, lambda _: (410, {"error": "gone", "status": 410}))
    body = json.dumps({"ctx": {"run_id": RUN_ID}, "event": {"name": "x"}, "steps": {}, "use_api": True}).encode()
    answer = call_asgi(app, "POST", f"{URL}?fnId=app-order&stepId=step", body)
    assert (answer.status, answer.content["name"]) == (500, "StateUnavailable")


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"path": "/elsewhere"}, 404),
        ({"path": "/api/inngest/"}, 200),
        ({"path": "/api/inngest/", "root_path": "/api/inngest"}, 200),
        ({"path": "/v1/api/inngest", "root_path": "/v1"}, 200),
        ({"path": "/api/inngest", "root_path": "/v1"}, 200),
        ({"path": "/api/inngest/more"}, 404),
    ],
)
def test_the_endpoint_is_found_alone_and_mounted(scope: dict[str, str], status: int) -> None:
    app, _ = make_app()
    assert call_asgi(app, "GET", scope["path"], b"", {}, **scope).status == status


def test_the_public_address_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_SERVE_ORIGIN", "https://shop.test")
    monkeypatch.setenv("INNGEST_SERVE_PATH", "/hooks/stepwell")
    app, client = make_app()
    server = connect(client, lambda _: (200, {"ok": True}))
    call_asgi(app, "PUT", URL)
    assert server.requests[0].body["url"] == "https://shop.test/hooks/stepwell"


@pytest.mark.parametrize(
    "declare",
    [
        lambda client: client.function(id="")(lambda ctx, step: None),
        lambda client: client.function(id="f", retries=21)(lambda ctx, step: None),
        lambda client: client.function(id="f", concurrency=[Concurrency(1)] * 3)(lambda ctx, step: None),
        lambda client: Concurrency(1, scope="account"),
        lambda client: Concurrency(-1),
        lambda client: Backoff("0s"),
        lambda client: Backoff("soon"),
        lambda client: Backoff("5s", factor=0.5),
        lambda client: Backoff("2h"),
        lambda client: Backoff("5s", cap="2d"),
        lambda client: [
            stepwell.serve.asgi(client, [client.function(id="f")(lambda ctx, step: None)] * 2),
        ],
    ],
)
def test_a_function_that_cannot_work_is_refused_when_it_is_declared(declare: Callable[[stepwell.Client], Any]) -> None:
    with pytest.raises(stepwell.ConfigError):
        declare(make_client())


def test_a_failure_of_the_sdk_itself_is_answered_so_that_the_server_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("lost")

    monkeypatch.setattr("stepwell._endpoint.Replay", fail)
    app, _ = make_app()
    answer = call_asgi(app, "POST", f"{URL}?fnId=app-order&stepId=step", Engine(app, "app-order").body_of("step", 0))
    assert (answer.status, answer.content["message"]) == (500, "The SDK failed: lost")
    assert "x-inngest-sdk" in answer.headers


def test_waits_between_tries_are_registered_beside_their_number() -> None:
    client = stepwell.Client("shop", is_dev=True)
    function = client.function(id="pay", retries=3, backoff=Backoff("5s", factor=1.5, cap=timedelta(minutes=10)))(
        lambda ctx, step: None
    )
    wired = function.to_wire("http://app.test/api")["steps"]["step"]["retries"]
    assert wired == {"attempts": 3, "backoff": {"initial": "5s", "factor": 1.5, "cap": "10m"}}
