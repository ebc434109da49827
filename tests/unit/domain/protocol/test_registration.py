import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.canonical import canonical_bytes
from app.domain.errors import RegistrationRefused
from app.domain.function import Function, function_of
from app.domain.ids import AppId, FunctionId
from app.domain.limits import PLANS
from app.domain.protocol.config_fields import Checks
from app.domain.protocol.function_config import FunctionConfig, read_stored
from app.domain.protocol.registration import Registration, read_registration
from app.domain.settings import (
    Batch,
    CancelRule,
    Concurrency,
    Debounce,
    RateLimit,
    Scope,
    Singleton,
    SingletonMode,
    Throttle,
    Timeouts,
    Trigger,
)
from tests.unit.domain.vectors import exchanges, load

_URL = "http://127.0.0.1:3000/api/inngest"
_STEPS = {
    "step": {"id": "step", "name": "step", "runtime": {"type": "http", "url": f"{_URL}?fnId=my-app-f&stepId=step"}}
}


def _app(*functions: Any, **more: Any) -> dict[str, Any]:
    return {"appName": "my-app", "url": _URL, "sdk": "js:v4.24.0", "functions": list(functions), **more}


def _function(**more: Any) -> dict[str, Any]:
    return {"id": "my-app-f", "name": "f", "triggers": [{"event": "t/a"}], "steps": _STEPS, **more}


def _read(app: object, checks: Checks | None = None) -> Registration:
    return read_registration(json.dumps(app).encode(), checks=checks)


def _config(**settings: Any) -> FunctionConfig:
    return _read(_app(_function(**settings))).functions[0]


def _refusal(app: object, checks: Checks | None = None) -> RegistrationRefused:
    with pytest.raises(RegistrationRefused) as refused:
        _read(app, checks)
    return refused.value


def _recorded() -> list[Any]:
    found = []
    for capture in ("dev-ts3.54.2", "dev-ts4.24.0-checkpointing", "dev-ts4.24.0-no-checkpointing", "dev-py0.5.19",
                    "dev-go0.15.1", "cloud-ts3.54.2", "cloud-ts4.24.0", "cloud-py0.5.19", "cloud-go0.15.1"):  # fmt: skip
        for path, exchange in exchanges(f"capture-{capture}.json"):
            bodies = [r["body"] for r in exchange.get("sdk_requests", []) if r["path"].startswith("/fn/register")]
            answer = exchange["response"]
            if answer["status"] == 200 and answer["headers"].get("x-inngest-sync-kind") == "in_band":
                bodies.append(answer["body"])
            found += [pytest.param(body, id=f"{capture}:{path}") for body in bodies]
    return found


def _untrimmed(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "functions": [one for one in body["functions"] if one != "…trimmed"]}


@pytest.mark.parametrize("body", _recorded())
def test_recorded_registrations_are_read(body: dict[str, Any]) -> None:
    body = _untrimmed(body)
    registration = _read(body)
    assert registration.app_name == "my-app"
    assert registration.url == body["url"].partition("?")[0]
    assert registration.framework == (body["framework"] or "")
    assert registration.app_version == body.get("appVersion", "")
    assert registration.is_in_band is ("app_id" in body)
    sdk = body.get("sdk") or f"{body['sdk_language']}:v{body['sdk_version']}"
    assert f"{registration.sdk_language}:v{registration.sdk_version}" == sdk
    assert [one.slug for one in registration.functions] == sorted(one["id"] for one in body["functions"])
    for config in registration.functions:
        (sent,) = (one for one in body["functions"] if one["id"] == config.slug)
        assert config.name == sent["name"]
        assert config.url == registration.url
        assert config.triggers == tuple(
            Trigger(event=one.get("event"), expression=one.get("expression"), cron=one.get("cron"))
            for one in sent["triggers"]
        )
        asked = (sent["steps"]["step"].get("retries") or {}).get("attempts", 4)
        assert config.retries == asked
        assert canonical_bytes(config.raw) == config.raw
        assert read_stored(config.raw) == config


@pytest.mark.parametrize("capture", ["dev-ts3.54.2", "dev-ts4.24.0-no-checkpointing", "dev-py0.5.19"])
def test_every_setting_of_the_full_function_is_understood(capture: str) -> None:
    (request,) = load(f"capture-{capture}.json")["sync_oob"]["sdk_requests"]
    configs = {one.slug: one for one in _read(_untrimmed(request["body"])).functions}
    full = configs["my-app-full"]
    assert full.triggers == (
        Trigger(event="t/full", expression="event.data.ok == true"),
        Trigger(cron="TZ=Europe/London 0 9 * * 1"),
    )
    assert full.retries == 7
    assert full.concurrency == (
        Concurrency(5, "event.data.user"),
        Concurrency(10, '"global"', Scope.ACCOUNT),
    )
    assert full.throttle == Throttle(3, timedelta(minutes=1), 2, "event.data.user")
    assert full.idempotency == "event.data.id"
    assert full.rate_limit == RateLimit(1, timedelta(hours=24), "event.data.id")
    assert full.debounce == Debounce(timedelta(seconds=5), "event.data.user", timedelta(minutes=1))
    assert full.priority == "event.data.prio"
    assert full.timeouts == Timeouts(timedelta(seconds=10), timedelta(hours=1))
    assert full.singleton == Singleton(SingletonMode.SKIP, "event.data.user")
    assert full.cancel[0] == CancelRule("t/cancel", timedelta(hours=1), "event.data.user == async.data.user")
    assert (full.cancel[1].event, full.cancel[1].timeout) == ("t/cancel2", timedelta(days=365))
    batch = configs["my-app-batch"]
    assert batch.batch is not None
    assert (batch.batch.max_size, batch.batch.timeout, batch.batch.key) == (50, timedelta(seconds=5), "event.data.user")
    assert batch.concurrency == (Concurrency(3),)
    assert batch.retries == 0


def test_the_shapes_of_go_are_understood() -> None:
    config = _config(
        Singleton={"Mode": "Cancel", "Key": None},
        concurrency={"step": [{"limit": 5, "key": "event.data.u", "scope": "Env", "hash": ""}], "fn": [{"limit": 2}]},
        retries=3,
        steps={"step": {"id": "step", "runtime": {"url": f"{_URL}?fnId=my-app-f&step=step"}, "retries": None}},
        checkpoint={"batch_steps": 1, "batch_interval": "1s", "max_runtime": 60_000_000_000},
    )
    assert config.singleton == Singleton(SingletonMode.CANCEL)
    assert config.concurrency == (Concurrency(5, "event.data.u", Scope.ENVIRONMENT),)
    assert config.run_concurrency == Concurrency(2)
    assert config.retries == 3
    assert config.url == _URL
    assert config.checkpoint == b'{"batch_interval":"1s","batch_steps":1,"max_runtime":60000000000}'


@pytest.mark.parametrize(
    ("settings", "field", "expected"),
    [
        ({"triggers": []}, "triggers", ()),
        ({"triggers": None}, "triggers", ()),
        ({"triggers": [{"cron": "* * * * *", "jitter": "30s"}]}, "triggers",
         (Trigger(cron="* * * * *", jitter=timedelta(seconds=30)),)),
        ({"name": None}, "name", "my-app-f"),
        ({"retries": 99}, "retries", 20),
        ({"retries": {"attempts": 0}}, "retries", 0),
        ({"concurrency": 0}, "concurrency", ()),
        ({"concurrency": 7}, "concurrency", (Concurrency(7),)),
        ({"concurrency": {"limit": 7, "key": ""}}, "concurrency", (Concurrency(7),)),
        ({"concurrency": []}, "concurrency", ()),
        ({"throttle": {"limit": 0, "period": "1500ms"}}, "throttle", Throttle(1, timedelta(seconds=1))),
        ({"debounce": {"period": "7d", "key": ""}}, "debounce", Debounce(timedelta(days=7))),
        ({"batchEvents": {"maxSize": 2, "timeout": "1m30s", "if": "true"}}, "batch",
         Batch(2, timedelta(seconds=90), None, "true")),
        ({"cancel": [{"event": "c", "timeout": "2030-01-01T00:00:00Z", "if": None}]}, "cancel",
         (CancelRule("c", datetime(2030, 1, 1, tzinfo=UTC)),)),
        ({"rateLimit": {"limit": 10, "period": "1h"}}, "rate_limit", RateLimit(10, timedelta(hours=1))),
        ({"priority": {"run": None}}, "priority", None),
        ({"steps": {"old": {"runtime": {"type": "ws", "url": "wss://connect?fnId=x"}}}}, "is_connect", True),
    ],
)  # fmt: skip
def test_settings_are_evened_out(settings: dict[str, Any], field: str, expected: object) -> None:
    config = _config(**settings)
    assert getattr(config, field) == expected
    assert getattr(read_stored(config.raw), field) == expected


_BATCH = {"maxSize": 5, "timeout": "5s"}


@pytest.mark.parametrize(
    ("settings", "code", "field"),
    [
        ({"id": ""}, "config_invalid", "id"),
        ({"steps": {}}, "config_invalid", "steps"),
        ({"steps": {"a": {}, "b": {}}}, "config_invalid", "steps"),
        ({"steps": {"step": {"runtime": {"url": "ftp://h/"}}}}, "config_invalid", "steps.step.runtime.url"),
        ({"triggers": {}}, "config_invalid", "triggers"),
        ({"triggers": [{}]}, "config_invalid", "triggers[0]"),
        ({"triggers": [{"event": "a", "cron": "* * * * *"}]}, "config_invalid", "triggers[0]"),
        ({"triggers": [{"event": "a"}, {"event": "a"}]}, "config_invalid", "triggers"),
        ({"triggers": [{"event": f"a{n}"} for n in range(11)]}, "config_invalid", "triggers"),
        ({"triggers": [{"event": "x" * 256}]}, "event_name_invalid", "triggers[0].event"),
        ({"triggers": [{"event": "a*"}]}, "event_name_invalid", "triggers[0].event"),
        ({"triggers": [{"event": "*"}]}, "event_name_invalid", "triggers[0].event"),
        ({"triggers": [{"event": ["a"]}]}, "event_name_invalid", "triggers[0].event"),
        ({"triggers": [{"cron": "* * * * *"}, {"cron": "* * * * *", "jitter": "9s"}]}, "schedule_invalid", "triggers"),
        ({"triggers": [{"cron": "x" * 256}]}, "schedule_invalid", "triggers[0].cron"),
        ({"triggers": [{"cron": "* * * * *", "jitter": "6m"}]}, "schedule_invalid", "triggers[0].jitter"),
        ({"retries": -1}, "config_invalid", "retries"),
        ({"retries": "many"}, "config_invalid", "retries"),
        ({"concurrency": -1}, "concurrency_limit_invalid", "concurrency.limit"),
        ({"concurrency": "5"}, "concurrency_limit_invalid", "concurrency.limit"),
        ({"concurrency": [{"limit": n} for n in (1, 2, 3)]}, "concurrency_limit_invalid", "concurrency"),
        ({"concurrency": {"limit": 1, "scope": "env"}}, "concurrency_limit_invalid", "concurrency.key"),
        ({"concurrency": {"limit": 1, "scope": "galaxy"}}, "concurrency_limit_invalid", "concurrency.scope"),
        ({"concurrency": {"fn": [{"limit": 0}]}}, "concurrency_limit_invalid", "concurrency.limit"),
        ({"concurrency": {"fn": [{"limit": 1}, {"limit": 2}]}}, "concurrency_limit_invalid", "concurrency"),
        ({"throttle": {"limit": 1}}, "config_invalid", "throttle.period"),
        ({"throttle": {"limit": 1, "period": "8d"}}, "config_invalid", "throttle.period"),
        ({"throttle": {"limit": "1", "period": "1m"}}, "config_invalid", "throttle.limit"),
        ({"rateLimit": {"limit": 0, "period": "1m"}}, "config_invalid", "rateLimit.limit"),
        ({"rateLimit": {"limit": 1, "period": "25h"}}, "config_invalid", "rateLimit.period"),
        ({"debounce": {"period": "500ms"}}, "config_invalid", "debounce.period"),
        ({"debounce": {"period": "soon"}}, "config_invalid", "debounce.period"),
        ({"timeouts": {"start": "-1s"}}, "config_invalid", "timeouts.start"),
        ({"singleton": {"mode": "wait"}}, "config_invalid", "singleton.mode"),
        ({"batchEvents": {**_BATCH, "maxSize": 1}}, "batch_size_invalid", "batchEvents.maxSize"),
        ({"batchEvents": {**_BATCH, "timeout": "1d"}}, "batch_timeout_invalid", "batchEvents.timeout"),
        ({"batchEvents": {**_BATCH, "timeout": "11m"}}, "batch_timeout_invalid", "batchEvents.timeout"),
        ({"batchEvents": {"maxSize": 5}}, "batch_timeout_invalid", "batchEvents.timeout"),
        ({"batchEvents": {**_BATCH, "key": 1}}, "batch_key_expression_invalid", "batchEvents.key"),
        ({"batchEvents": {**_BATCH, "if": "!!"}}, "batch_if_expression_invalid", "batchEvents.if"),
        ({"batchEvents": _BATCH, "cancel": [{"event": "c"}]}, "combo_unsupported", "cancel"),
        ({"batchEvents": _BATCH, "debounce": {"period": "5s"}}, "combo_unsupported", "debounce"),
        ({"batchEvents": _BATCH, "singleton": {"mode": "skip"}}, "combo_unsupported", "singleton"),
        ({"batchEvents": _BATCH, "priority": {"run": "1"}}, "combo_unsupported", "priority.run"),
        ({"batchEvents": {**_BATCH, "maxSize": 501}}, "plan_upgrade_required", "batchEvents.maxSize"),
        ({"cancel": [{"event": f"c{n}"} for n in range(6)]}, "config_invalid", "cancel"),
        ({"cancel": [{"if": "x"}]}, "event_name_invalid", "cancel[0].event"),
        ({"cancel": [{"event": "c", "timeout": "soon"}]}, "config_invalid", "cancel[0].timeout"),
        ({"cancel": [{"event": "c", "if": "async !!"}]}, "expression_invalid", "cancel[0].if"),
        ({"idempotency": "!!"}, "expression_invalid", "idempotency"),
        ({"priority": {"run": "x" * 4097}}, "expression_too_costly", "priority.run"),
        ({"triggers": [{"cron": "never"}]}, "schedule_invalid", "triggers[0].cron"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_the_protocol_refuses_is_refused_with_code_and_field(
    settings: dict[str, Any], code: str, field: str
) -> None:
    checks = Checks(
        cron=lambda text: "that is not a cron" if text == "never" else None,
        expression=lambda text, has_async: "does not compile" if text.endswith("!!") else None,
        plan=PLANS["self_hosted"],
    )
    refused = _refusal(_app(_function(**settings)), checks)
    assert refused.code == code
    assert refused.message == "At least one function is invalid"
    assert refused.details["problems"] == [
        {"function": settings.get("id", "my-app-f"), "field": field, "code": code, "message": _message(refused)}
    ]


def _message(refused: RegistrationRefused) -> Any:
    problems: Any = refused.details["problems"]
    assert len(problems[0]["message"]) > 10
    return problems[0]["message"]


def test_all_problems_are_reported_at_once() -> None:
    refused = _refusal(_app(_function(retries=-1, concurrency=-1), _function(id="my-app-g", triggers=[{}]), 7))
    problems: Any = refused.details["problems"]
    assert [one["field"] for one in problems] == ["retries", "concurrency.limit", "triggers[0]", "functions"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"retries": 21}, "retries"),
        ({"idempotency": "event.id", "rateLimit": {"limit": 1, "period": "1h"}}, "rateLimit"),
        ({"batchEvents": _BATCH, "rateLimit": {"limit": 1, "period": "1h"}}, "rateLimit"),
        ({"batchEvents": _BATCH, "idempotency": "event.id"}, "rateLimit"),
    ],
)
def test_what_the_protocol_ignores_is_a_warning(settings: dict[str, Any], field: str) -> None:
    (warning,) = _read(_app(_function(**settings))).warnings
    assert (warning.field, warning.code) == (field, "no_effect")


def test_events_of_patterns_may_be_registered_as_triggers() -> None:
    patterns = {one for vector in load("ids-misc.json")["trigger_patterns"] for one in vector["matching_triggers"]}
    for pattern in patterns:
        assert _config(triggers=[{"event": pattern}]).triggers == (Trigger(event=pattern),)


@pytest.mark.parametrize(
    ("app", "code"),
    [
        ([], "registration_invalid"),
        ({"appName": "", "functions": []}, "app_id_required"),
        ({"appName": None}, "app_id_required"),
        (_app(_function(), url="nowhere"), "registration_invalid"),
        (_app(_function(), appName="x" * 256), "registration_invalid"),
        (_app(), "no_functions"),
        (_app(functions=None), "no_functions"),
        (_app(_function(), _function()), "config_invalid"),
        (_app(_function(), sdk="js:v3.22.0"), "sdk_version_denied"),
        (_app(_function(), sdk="js:v3.53.1"), "sdk_version_denied"),
        (_app(_function(), sdk="js:v3.40.0-beta.1"), "sdk_version_denied"),
        (_app(*[_function(id=f"my-app-{n}") for n in range(101)]), "plan_upgrade_required"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_an_app_that_cannot_be_registered_is_refused(app: object, code: str) -> None:
    assert _refusal(app, Checks(plan=PLANS["free"])).code == code


@pytest.mark.parametrize("sdk", ["js:v3.21.9", "js:v3.53.2", "js:v4.0.0", "py:v3.30.0", "go:v0.15.1", "js:dev", ""])
def test_other_sdk_versions_may_register(sdk: str) -> None:
    assert _read(_app(_function(), sdk=sdk)).app_name == "my-app"


def test_a_body_that_is_not_json_is_refused_with_its_place() -> None:
    with pytest.raises(RegistrationRefused) as refused:
        read_registration(b'{"appName":')
    assert (refused.value.code, refused.value.details) == ("registration_invalid", {"offset": 11})


def test_a_body_without_address_uses_the_one_that_was_asked() -> None:
    app = json.dumps(_app(_function(), url=None)).encode()
    assert read_registration(app, url="https://example.com/api").url == "https://example.com/api"


def test_the_checksum_sees_settings_and_nothing_else() -> None:
    one, two = _function(), _function(id="my-app-g")
    first = _read(_app(one, two)).checksum
    deployed = json.loads(json.dumps(_app(two, one)).replace("?fnId", "?deployId=d2&fnId"))
    deployed |= {
        "url": f"{_URL}?deployId=d2",
        "deployId": "d2",
        "featureObservations": {"x": 1},
        "headers": {"env": ""},
    }
    assert _read(deployed).checksum == first
    for changed in (
        _app(one),
        _app(one, {**two, "retries": 1}),
        _app(one, two, url="http://127.0.0.1:3001/api/inngest"),
        _app(one, two, sdk="js:v4.25.0"),
        _app(one, two, appVersion="2"),
        _app(one, two, appName="other"),
    ):
        assert _read(changed).checksum != first


def test_a_function_knows_its_attempts_and_what_batching_switches_off() -> None:
    def made(config: FunctionConfig) -> Function:
        ids = FunctionId(UUID(int=1)), AppId(UUID(int=2))
        return function_of(config, id=ids[0], app_id=ids[1], app_name="my-app", version=3)

    config = _config(retries=2, idempotency="event.id")
    function = made(config)
    assert (function.max_attempts, function.version, function.slug, function.url) == (3, 3, "my-app-f", _URL)
    assert function.rate_limit == config.rate_limit
    assert not function.is_failure_handler
    batched = made(_config(batchEvents=_BATCH, idempotency="event.id"))
    assert batched.rate_limit is None
    handler = made(_config(triggers=[{"event": "inngest/function.failed"}]))
    assert handler.is_failure_handler


_NAMES = ["id", "triggers", "steps", "step", "runtime", "url", "event", "cron", "concurrency", "limit", "key", "scope",
          "throttle", "period", "retries", "attempts", "batchEvents", "maxSize", "timeout", "cancel", "singleton",
          "mode", "timeouts", "start", "priority", "run", "debounce", "rateLimit", "idempotency", "fn"]  # fmt: skip
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**45) | st.text(max_size=5) | st.sampled_from(["1s", _URL, "fn"]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), part, max_size=6),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(_NAMES), _ANYTHING, max_size=8))
def test_any_function_is_registered_or_refused(settings: dict[str, Any]) -> None:
    with suppress(RegistrationRefused):
        for config in _read(_app(_function(**settings))).functions:
            assert read_stored(config.raw) == config


@given(st.binary(max_size=40) | _ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_registration_or_a_refusal(body: bytes) -> None:
    with pytest.raises(RegistrationRefused):
        read_registration(body)
