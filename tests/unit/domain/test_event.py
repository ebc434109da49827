import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.canonical import canonical_bytes
from app.domain.errors import EventRefused, JsonRefused, Refused
from app.domain.event import NewEvent, event_payload, read_events, seeded_ids
from app.domain.ids import to_ulid
from tests.unit.domain.vectors import exchanges, load

_NOW = 1_700_000_000_000
_ID = "01HEVT0000000000000000000A"


def _read(body: bytes, *, limit: int = 512 * 1024) -> list[NewEvent]:
    return read_events(body, max_event_bytes=limit, received_ms=_NOW)


def _refusal(body: bytes, **more: int) -> Refused:
    with pytest.raises((EventRefused, JsonRefused)) as refused:
        _read(body, **more)
    return refused.value


def _event(**fields: Any) -> bytes:
    return json.dumps({"name": "t/a", **fields}).encode()


def test_an_object_is_one_event_and_a_list_is_many() -> None:
    assert [event.name for event in _read(b'{"name":"a"}')] == ["a"]
    assert [event.name for event in _read(b' [{"name":"a"},{"name":"b"}]\n')] == ["a", "b"]


def test_an_event_without_anything_but_a_name_gets_the_defaults() -> None:
    (event,) = _read(b'{"name":"t/a","data":null,"user":null,"ts":null,"id":""}')
    assert event == NewEvent(name="t/a", data=b"{}", ts=_NOW, size=event.size)
    assert event_payload(event, _ID) == b'{"data":{},"id":"%s","name":"t/a","ts":%d,"user":{}}' % (_ID.encode(), _NOW)
    assert event.size == len(event_payload(event, _ID))


def test_the_payload_is_the_canonical_text_of_the_whole_event() -> None:
    body = _event(
        data={"b": 1.0, "a": "é"}, id='o"1', ts=_NOW + 1, user={"z": 1, "a": 2}, v="2", meta={"sessions": {"k": 7}}
    )
    payload = event_payload(_read(body)[0], _ID)
    assert json.loads(payload) == {**json.loads(body), "name": "t/a"}
    assert canonical_bytes(payload) == payload


def test_what_is_between_the_server_and_the_functions_is_taken_out_of_data() -> None:
    assert _read(_event(data={"_inngest": {"fn_id": "x"}, "a": 1}))[0].data == b'{"a":1}'


def test_odd_but_valid_data_round_trips() -> None:
    (event,) = _read(b'{"name":"a","data":{"x":"\\u0000","__proto__":{"a":1},"d":1,"d":2,"h":"<b>"}}')
    assert event.data == b'{"__proto__":{"a":1},"d":2,"h":"<b>","x":"\\u0000"}'


def test_original_text_is_kept_only_where_digits_are_lost() -> None:
    kept, plain = _read(b'[{"name":"a","data":{"n": 12345678901234567890}}, {"name":"b","data":{"n": 1}}]')
    assert kept.original == '{"name":"a","data":{"n": 12345678901234567890}}'
    assert kept.data == b'{"n":12345678901234567000}'
    assert plain.original is None


def test_propagated_sessions_join_the_events_own_and_lose_against_them() -> None:
    meta = {"sessions": {"a": "own"}, "propagated_sessions": {"a": "parent", "b": 2, "c": {"no": 1}}}
    assert _read(_event(meta=meta))[0].meta == b'{"sessions":{"a":"own","b":2}}'


def test_no_more_than_five_sessions_are_kept() -> None:
    meta = _read(_event(meta={"sessions": {str(n): n for n in range(9)}}))[0].meta
    assert meta is not None
    assert len(json.loads(meta)["sessions"]) == 5


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body_empty"),
        (b" \n", "body_empty"),
        (b"{", "json_invalid"),
        (b'{"name":"a"} x', "json_invalid"),
        (b"name=a", "json_invalid"),
        (b'\xef\xbb\xbf{"name":"a"}', "json_invalid"),
        (b'{"name":"\xff"}', "json_encoding"),
        (b'{"name":"a","data":{"x":"\\ud800"}}', "json_encoding"),
        (b'{"name":"a","data":{"x":NaN}}', "json_number_range"),
        (b'{"name":"a","data":{"x":1e999}}', "json_number_range"),
        (b'{"name":"a","data":{"x":' + b"9" * 41 + b"}}", "json_number_range"),
        (b'{"name":"a","data":' + b'{"a":' * 64 + b"1" + b"}" * 65, "json_too_deep"),
        (b"[" * 65 + b"]" * 65, "json_too_deep"),
        (b'{"name":"a","data":' + b'{"a":' * 800 + b"1234567890123456789" + b"}" * 801, "json_too_deep"),
        (b'{"name":"a","data":{"x":[' + b"0," * 100_000 + b"0]}}", "json_too_complex"),
        (b"1", "body_not_event"),
        (b"[]", "body_not_event"),
        (b"[1]", "body_not_event"),
        (b'[[{"name":"a"}]]', "body_not_event"),
        (b"{}", "event_name_invalid"),
        (b'{"name":""}', "event_name_invalid"),
        (b'{"name":["a"]}', "event_name_invalid"),
        (b'{"name":"a\\u0000"}', "event_name_invalid"),
        (_event(name="é" * 257), "event_name_invalid"),
        (_event(name="InnGest/x"), "event_name_reserved"),
        (_event(data=[]), "event_data_invalid"),
        (_event(data="x"), "event_data_invalid"),
        (_event(ts="1700000000000"), "event_ts_invalid"),
        (_event(ts=True), "event_ts_invalid"),
        (_event(ts=1.5), "event_ts_invalid"),
        (_event(ts=1_700_000_000), "event_ts_invalid"),
        (_event(ts=4_102_444_800_000), "event_ts_invalid"),
        (_event(id=1), "event_id_invalid"),
        (_event(id="x" * 257), "event_id_invalid"),
        (_event(id="a\nb"), "event_id_invalid"),
        (b"[" + b"{}," * 5_000 + b"{}]", "too_many_events"),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else value,
)
def test_bad_bodies_are_refused_with_their_code(body: bytes, code: str) -> None:
    assert _refusal(body).code == code


def test_the_largest_of_everything_is_accepted() -> None:
    deepest = b'{"name":"a","data":' + b'{"a":' * 62 + b"{}" + b"}" * 63
    assert _read(deepest)[0].name == "a"
    assert _read(_event(name="n" * 512, id="i" * 256, ts=315_532_800_000))[0].ts == 315_532_800_000


def test_one_bad_event_refuses_the_batch_and_says_which() -> None:
    refused = _refusal(b'[{"name":"a"},{"name":"b"},{"name":"inngest/x"}]')
    assert (refused.code, refused.details["index"]) == ("event_name_reserved", 2)


def test_an_event_over_its_plan_limit_is_refused_with_size_and_limit() -> None:
    big = _event(data={"x": "y" * 100})
    size = _read(big)[0].size
    assert _read(big, limit=size)[0].size == size
    refused = _refusal(b"[%s,%s]" % (_event(), big), limit=size - 1)
    assert refused.code == "event_too_large"
    assert refused.details == {"index": 1, "size": size, "limit": size - 1}


@pytest.mark.parametrize("vector", load("event-ids.json")["seeded"], ids=lambda vector: vector["header"])
def test_seeds_give_the_recorded_ids(vector: dict[str, Any]) -> None:
    ids = seeded_ids(vector["header"], 4, start=0)
    assert ids is not None
    assert [to_ulid(one) for one in ids] == list(vector["ids_by_index"].values())
    assert seeded_ids(vector["header"], 2) == ids[1:3]


@pytest.mark.parametrize(
    "header", [*load("event-ids.json")["ignored_headers"], "99999999999999999,eii2YKXRVTJPuA==", "1,AAAA"]
)
def test_headers_that_are_no_seed_are_ignored(header: str) -> None:
    assert seeded_ids(header, 1) is None


@pytest.mark.parametrize(
    "capture",
    [
        "dev-ts3.54.2",
        "dev-ts4.24.0-no-checkpointing",
        "dev-py0.5.19",
        "dev-go0.15.1",
        "cloud-ts4.24.0",
        "cloud-py0.5.19",
    ],
)
def test_events_that_sdks_really_send_are_accepted(capture: str) -> None:
    sent = [
        request["body"]
        for _, exchange in exchanges(f"capture-{capture}.json")
        for request in exchange.get("sdk_requests", [])
        if request["path"].startswith("/e/")
    ]
    assert sent
    for body in sent:
        events = _read(json.dumps(body).encode())
        assert [event.name for event in events] == [item["name"] for item in body]


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda p: (
            st.lists(p) | st.dictionaries(st.sampled_from(["name", "data", "ts", "id", "user", "meta", "v", "x"]), p)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_events_or_a_refusal(body: bytes) -> None:
    with suppress(Refused):
        for event in _read(body):
            payload = event_payload(event, _ID)
            assert canonical_bytes(payload) == payload
