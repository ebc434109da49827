"""The wire format against the shared vectors: signatures, hashes, step ids, durations, events, settings."""

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sdk_world import Request, connect, make_client

import stepwell
from stepwell import _durations, _json, _settings, _signature
from stepwell._replay import hash_step_id

VECTORS = Path(__file__).parent / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


SIGNING = vectors("signing")


@pytest.mark.parametrize("vector", SIGNING["request_signature"], ids=lambda vector: str(vector["body_utf8"])[:20])
def test_request_signatures_are_accepted_in_canonical_and_in_any_other_form(vector: dict[str, Any]) -> None:
    key, header, moment = vector["key"], vector["signature_header"], vector["timestamp"]
    for body in (vector["body_utf8"], vector["canonical_utf8"]):
        assert _signature.verify(header, body.encode(), [key], now=moment) == key
    assert _signature.verify(header, vector["body_utf8"].encode() + b" x", [key], now=moment) is None
    assert _json.canonical(vector["body_utf8"].encode()).decode() == vector["canonical_utf8"]


@pytest.mark.parametrize("vector", SIGNING["response_signature"], ids=lambda vector: str(vector["body_utf8"])[:20])
def test_response_signatures_cover_the_exact_bytes(vector: dict[str, Any]) -> None:
    signed = _signature.sign(vector["key"], vector["body_utf8"].encode(), at=vector["timestamp"])
    assert signed == vector["signature_header"]


@pytest.mark.parametrize("vector", SIGNING["signing_key_hash"], ids=lambda vector: str(vector["key"])[:24])
def test_signing_keys_are_hashed_over_their_decoded_bytes(vector: dict[str, Any]) -> None:
    assert _signature.hash_key(vector["key"]) == vector["python_sdk"]
    assert _signature.bearer(vector["key"]) == vector["ts_sdk"]


@pytest.mark.parametrize(("offset", "accepted"), [(-299, True), (-301, False), (299, True), (301, False)])
def test_a_signature_is_taken_for_five_minutes_either_way(offset: int, accepted: bool) -> None:
    header = _signature.sign("00ff", b"{}", at=1_700_000_000 + offset)
    assert (_signature.verify(header, b"{}", ["00ff"], now=1_700_000_000) is not None) is accepted


@pytest.mark.parametrize(
    "header", [None, "", "t=&s=", "t=now&s=aa", "s=aa", "t=²&s=aa", "t=1700000000&s=ä", "nonsense"]
)
def test_a_header_that_is_no_signature_is_refused(header: str | None) -> None:
    assert _signature.verify(header, b"{}", ["00ff"], now=1_700_000_000) is None


def test_a_signing_key_that_is_no_hex_is_refused_with_advice() -> None:
    with pytest.raises(stepwell.ConfigError, match="keys page"):
        make_client(signing_key="signkey-prod-xyz")


@pytest.mark.parametrize("vector", vectors("step-ids"), ids=lambda vector: f"{vector['id']}-{vector['index']}")
def test_step_ids_are_hashed_with_their_repeat_index(vector: dict[str, Any]) -> None:
    assert hash_step_id(vector["id"], vector["index"]) == vector["sha1_hex"]


@pytest.mark.parametrize("vector", vectors("durations")["python_to_wire"], ids=lambda vector: str(vector["wire"]))
def test_durations_are_written_in_their_largest_whole_unit(vector: dict[str, Any]) -> None:
    assert _durations.to_wire(timedelta(seconds=vector["timedelta_seconds"])) == vector["wire"]


@pytest.mark.parametrize("vector", vectors("durations")["server_parse"], ids=lambda vector: str(vector["wire"]))
def test_texts_are_read_as_the_server_reads_them(vector: dict[str, Any]) -> None:
    assert _durations.parse(vector["wire"]) == timedelta(milliseconds=vector["ms"])
    assert _durations.parse(_durations.to_wire(vector["wire"])) == timedelta(milliseconds=vector["ms"])


@pytest.mark.parametrize("text", [*vectors("durations")["server_parse_invalid"], "", "-1s", "1 h"])
def test_a_text_that_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        _durations.to_wire(text)


def test_spans_below_a_millisecond_are_rounded_up_and_negative_ones_refused() -> None:
    assert _durations.to_wire(timedelta(microseconds=1)) == "1ms"
    assert _durations.to_wire(timedelta()) == "0s"
    with pytest.raises(ValueError, match="negative"):
        _durations.to_wire(timedelta(seconds=-1))
    with pytest.raises(ValueError, match="time zone"):
        _durations.moment_to_wire(datetime(2030, 1, 1))  # noqa: DTZ001  the point of the test


def test_events_are_sent_as_a_list_with_time_and_the_same_seed_on_every_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell._api.time.sleep", lambda _: None)
    client = make_client(event_key="key/1", env="branch")
    statuses = [0, 500, 200]

    def respond(_: Request) -> tuple[int, Any]:
        return statuses.pop(0), {"ids": ["01A", "01B"], "status": 200}

    server = connect(client, respond)

    assert client.send_sync([{"name": "t/a", "data": {"x": 1}, "id": "o1"}, {"name": "t/b"}]) == ["01A", "01B"]
    assert len(server.requests) == 3
    assert len({request.headers["x-inngest-event-id-seed"] for request in server.requests}) == 1
    request = server.requests[0]
    assert request.url == "http://server.test/e/key%2F1"
    assert request.headers["x-inngest-env"] == "branch"
    assert "authorization" not in request.headers
    first, second = request.body
    assert (first["name"], first["data"], first["id"]) == ("t/a", {"x": 1}, "o1")
    assert abs(second["ts"] / 1000 - datetime.now(UTC).timestamp()) < 60


def test_refused_events_are_not_sent_again_and_the_reason_is_told() -> None:
    client = make_client()
    server = connect(client, lambda _: (400, {"ids": ["01A"], "error": "event name is empty", "status": 400}))

    with pytest.raises(stepwell.SendEventsError, match="event name is empty") as caught:
        client.send_sync([{"name": "t/a"}, {"name": "t/b"}])

    assert (caught.value.ids, caught.value.status, len(server.requests)) == (["01A"], 400, 1)
    assert server.requests[0].url.endswith("/e/NO_EVENT_KEY_SET")


@pytest.mark.parametrize("event", [{}, {"name": ""}, {"name": "t/a", "payload": {}}])
def test_an_event_that_cannot_be_right_is_refused_before_it_is_sent(event: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="event"):
        make_client().send_sync(event)


@pytest.mark.parametrize(
    ("variables", "is_dev", "origin"),
    [
        ({"INNGEST_DEV": "1"}, True, "http://127.0.0.1:8288"),
        ({"INNGEST_DEV": "http://dev.test:9/"}, True, "http://dev.test:9"),
        ({"INNGEST_DEV": "0", "INNGEST_BASE_URL": "https://s.test"}, False, "https://s.test"),
        ({"INNGEST_BASE_URL": "s.test"}, False, "https://s.test"),
        ({"INNGEST_DEV": "1", "INNGEST_BASE_URL": "http://s.test"}, True, "http://s.test"),
        (
            {"INNGEST_DEV": "0", "STEPWELL_SDK_DEV": "1", "STEPWELL_BASE_URL": "http://other"},
            True,
            "http://127.0.0.1:8288",
        ),
        (
            {"INNGEST_DEV": "1", "INNGEST_BASE_URL": "http://s", "INNGEST_API_BASE_URL": "http://api"},
            True,
            "http://api",
        ),
    ],
)
def test_mode_and_address_come_from_the_environment(variables: dict[str, str], is_dev: bool, origin: str) -> None:
    settings = _settings.resolve(environ=variables)
    assert (settings.is_dev, settings.api_origin) == (is_dev, origin)


def test_arguments_win_over_variables() -> None:
    variables = {"INNGEST_DEV": "1", "INNGEST_BASE_URL": "http://a", "INNGEST_EVENT_API_BASE_URL": "http://b"}
    settings = _settings.resolve(is_dev=False, base_url="http://c", environ=variables)
    assert (settings.is_dev, settings.api_origin, settings.event_origin) == (False, "http://c", "http://c")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "INNGEST_BASE_URL"),
        ({"INNGEST_DEV": "perhaps"}, "INNGEST_DEV"),
        ({"INNGEST_BASE_URL": "ftp://x"}, "BASE_URL"),
    ],
)
def test_a_wrong_or_missing_setting_is_refused_by_name(variables: dict[str, str], named: str) -> None:
    with pytest.raises(stepwell.ConfigError, match=named):
        _settings.resolve(environ=variables)


def test_keys_do_not_appear_when_settings_are_printed() -> None:
    settings = _settings.resolve(environ={"INNGEST_DEV": "1", "INNGEST_EVENT_KEY": "ek", "INNGEST_SIGNING_KEY": "sk"})
    assert "ek" not in repr(settings).replace("key", "")
    assert "'sk'" not in repr(settings)


def test_without_an_event_key_sending_says_what_to_set() -> None:
    client = make_client(is_dev=False)
    with pytest.raises(stepwell.ConfigError, match="INNGEST_EVENT_KEY"):
        client.send_sync({"name": "t/a"})


def test_the_reported_version_is_the_package_version() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["version"] == stepwell.__version__
