"""Waits and cancellations: what is fixed when they open, and how an arriving event finds them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.expressions import (
    ExpressionRefused,
    IndexKey,
    bind_event,
    compile_expression,
    index_value,
)

EVENT: dict[str, Any] = {
    "name": "shop/order.placed",
    "data": {
        "id": "o-1",
        "n": 1,
        "pi": 3.14,
        "yes": True,
        "nil": None,
        "list": [1, 2],
        "user": {"id": 7},
        "long": "x" * 500,
    },
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("async.data.id == event.data.id", "/data/id", "s:o-1"),
        ("event.data.id == async.data.id", "/data/id", "s:o-1"),
        ("async.data['id'] == event.data['id']", "/data/id", "s:o-1"),
        ("async.data.n == event.data.n", "/data/n", "n:1"),
        ("async.data.n == 1.0", "/data/n", "n:1"),
        ("async.data.ok == event.data.yes", "/data/ok", "b:true"),
        ("async.data.pi == event.data.pi", "/data/pi", "n:3.14"),
        ("async.data.x == event.data.nil", "/data/x", "null"),
        ("async.data.x == event.data.gone", "/data/x", "null"),
        ("async.data.kind == 'paid' && async.data.id == event.data.id", "/data/id", "s:o-1"),
        ("async.data.kind == 'paid' && async.data.total > 5", "/data/kind", "s:paid"),
        ("async.data.a > 1 && (async.data.b < 2 && event.data.user.id == async.data.u)", "/data/u", "n:7"),
        ("event.data.yes && async.data.id == event.data.id", "/data/id", "s:o-1"),
        ("async.data.id == event.data.id && (event.data.gone == null || async.x)", "/data/id", "s:o-1"),
        ("async.data.id == event.data.id + '-x'", "/data/id", "s:o-1-x"),
        ("async.data['a/b~c'] == event.data.id", "/data/a~1b~0c", "s:o-1"),
        ("async[event.data.id] == 1", "/o-1", "n:1"),
    ],
)
def test_wait_is_indexed_by_a_top_level_equality(text: str, path: str, value: str) -> None:
    assert bind_event(text, EVENT).index == IndexKey(path, value)


@pytest.mark.parametrize(
    "text",
    [
        "async.data.id != event.data.id",
        "async.data.id == event.data.id || async.data.other == 1",
        "!(async.data.id == event.data.id)",
        "async.data.id == async.data.other",
        "async == event.data.id",
        "async.data.list[0] == event.data.id",
        "[1].exists(async, async.x == event.data.id) && async.data.y > 1",
        "async.data.at == now_plus('1h')",
    ],
)
def test_wait_without_a_top_level_equality_has_no_index(text: str) -> None:
    assert bind_event(text, EVENT).index is None


@pytest.mark.parametrize(
    ("left", "right"), [(1, 1.0), (0, -0.0), (2**53 + 2, float(2**53 + 2)), (10**21, 1e21), (None, None)]
)
def test_equal_values_have_the_same_key(left: Any, right: Any) -> None:
    assert index_value("/v", {"v": left}) == index_value("/v", {"v": right})


def test_different_kinds_have_different_keys_and_long_texts_short_ones() -> None:
    values: list[Any] = [1, "1", True, "true", None, "null", [], {}, "", 0, False, "x" * 1000, "x" * 1001, "a\x00b"]
    keys = [index_value("/v", {"v": value}) for value in values]
    assert len(set(keys)) == len(keys)
    assert all(len(key) <= 110 and "\x00" not in key for key in keys)
    assert index_value("/v/w", {"v": "text"}) == index_value("/gone", {}) == "null"


@pytest.mark.parametrize(
    ("text", "never", "always", "residual"),
    [
        ("event.data.n == 2 && async.data.x == 1", True, False, "false"),
        ("async.data.x == 1 && event.data.n == 2", True, False, "false"),
        ("event.data.gone", True, False, "false"),
        ("1 / 0 > 1", True, False, "false"),
        ("1 / 0 < 1", False, True, "true"),
        ("1 / 0", True, False, "false"),
        ("event.data.n == 1", False, True, "true"),
        ("event.data.yes || async.data.x", False, True, "true"),
        ("async.data.x || event.data.yes", False, True, "true"),
        ("event.data.yes ? async.data.x == 1 : async.data.y", False, False, "async.data.x == 1"),
        ("async.data.id == event.data.id && event.data.yes", False, False, "async.data.id == 'o-1'"),
        ("async.data.l == event.data.list", False, False, "async.data.l == [1, 2]"),
        ("async.data.u == event.data.user", False, False, "async.data.u == event.data.user"),
        ("async.data.u == event.data.long", False, False, "async.data.u == event.data.long"),
        ("async.data.u == event.data.gone", False, False, "async.data.u == event.data.gone"),
        ("async.data.t < now()", False, False, "async.data.t < now()"),
        (
            "async.data.list.exists(x, x == event.data.n)",
            False,
            False,
            "async.data.list.exists(x, x == 1)",
        ),
    ],
)
def test_what_the_event_decides_is_decided_when_the_wait_opens(
    text: str, never: bool, always: bool, residual: str
) -> None:
    bound = bind_event(text, EVENT)
    assert (bound.never, bound.always, bound.residual) == (never, always, residual)


def test_only_what_the_text_mentions_of_the_event_is_kept() -> None:
    assert bind_event("async.data.id == event.data.id && event.data.user.id > 1", EVENT).event == {
        "data": {"id": "o-1", "user": {"id": 7}}
    }
    assert bind_event("async.x == event.data.user.id || async.y == event.data.user", EVENT).event == {
        "data": {"user": {"id": 7}}
    }
    assert bind_event("has(event.data.nil) && has(event.data.gone) && async.x", EVENT).event == {"data": {"nil": None}}
    assert bind_event("event.data[async.data.field] == 1", EVENT).event == {"data": EVENT["data"]}
    assert bind_event("event == async", EVENT).event == EVENT
    assert bind_event("async.data.x == 1", EVENT).event == {}


def test_bound_wait_is_judged_on_what_was_kept() -> None:
    bound = bind_event("async.data.id == event.data.id && async.data.total > event.data.n", EVENT)
    assert bound.judge({"data": {"id": "o-1", "total": 2}}, NOW) == (True, None)
    assert bound.judge({"data": {"id": "o-1", "total": 1}}, NOW) == (False, None)
    assert bound.judge({"data": {}}, NOW) == (False, None)
    failing = bind_event("async.data.id.contains(event.data.n)", EVENT)
    is_match, reason = failing.judge({"data": {"id": "o-1"}}, NOW)
    assert not is_match
    assert reason is not None


def test_bad_text_of_a_wait_is_refused() -> None:
    with pytest.raises(ExpressionRefused):
        bind_event("async.data.id ==", EVENT)
    with pytest.raises(ExpressionRefused, match="no variable 'steps'"):
        bind_event("steps.x == async.data.id", EVENT)


def test_known_part_that_is_too_costly_does_not_decide_the_wait() -> None:
    event = {"data": {"big": list(range(200_000))}}
    bound = bind_event("async.ok || event.data.big.all(x, x >= 0)", event)
    assert (bound.never, bound.always, bound.index) == (False, False, None)
    assert bound.judge({"ok": True}) == (True, None)
    assert bound.judge({"ok": False})[0] is False


VALUES = st.sampled_from([None, True, False, 0, 1, 1.0, 2.5, "", "1", "a", [1], {}, {"a": 1}, {"b": None}])
OBJECTS = st.dictionaries(st.sampled_from(["a", "b"]), VALUES | st.dictionaries(st.sampled_from(["a", "b"]), VALUES))
ATOMS = st.sampled_from(
    ["event.a", "event.b", "event.a.b", "async.a", "async.b", "async.a.b", "1", "'a'", "null", "true", "false", "event"]
    + ["has(event.a.b)", "has(async.a)", "1 / 0", "async"]
)
WAITS = st.recursive(
    st.builds("({} == {})".format, ATOMS, ATOMS) | ATOMS,
    lambda inner: (
        st.builds("({} && {})".format, inner, inner)
        | st.builds("({} || {})".format, inner, inner)
        | st.builds("({} == {})".format, inner, inner)
        | st.builds("({} ? {} : {})".format, inner, inner, inner)
        | st.builds("!({})".format, inner)
        | st.builds("({}).exists(event, event == {})".format, inner, inner)
        | st.builds("({} + {})".format, inner, inner)
        | st.builds("({} < {})".format, inner, inner)
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(WAITS, OBJECTS, st.lists(OBJECTS, max_size=4))
def test_binding_and_its_index_never_change_who_matches(
    text: str, event: dict[str, Any], candidates: list[dict[str, Any]]
) -> None:
    try:
        whole = compile_expression(text, ("event", "async"))
    except ExpressionRefused:
        return
    bound = bind_event(text, event)
    json.dumps(bound.event)
    for candidate in candidates:
        is_match = whole.matches({"event": event, "async": candidate}, NOW)
        assert bound.judge(candidate, NOW)[0] == is_match
        if bound.never:
            assert not is_match
        if bound.always:
            assert is_match
        if is_match and bound.index is not None:
            assert index_value(bound.index.path, candidate) == bound.index.value
        # The residual is an expression of the same truth over the kept event.
        residual = compile_expression(bound.residual, ("event", "async"))
        assert residual.matches({"event": bound.event, "async": candidate}, NOW) == is_match
