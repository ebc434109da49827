"""Which functions an event sets off: patterns, at most once each, in order, and why others were not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.matching import (
    Filtered,
    Trigger,
    TriggerIndex,
    patterns_for,
    stored_wait,
    wait_matches,
    wait_text,
    wait_value,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def never_decoded() -> dict[str, Any]:
    raise AssertionError("nothing asked for the event")


# The vectors of protocol section 29.
@pytest.mark.parametrize(
    ("event", "patterns"),
    [
        ("app/user.created", ["app/user.created", "app/*", "app/user.*"]),
        ("api/v1/users", ["api/v1/users", "api/*", "api/v1/*"]),
        ("user.updated", ["user.updated", "user.*"]),
        ("simple", ["simple"]),
        ("a/b.c/d.e", ["a/b.c/d.e", "a/*", "a/b.c/*", "a/b.*", "a/b.c/d.*"]),
        ("ends.", ["ends.", "ends.*"]),
        ("", [""]),
    ],
)
def test_patterns_of_an_event_are_its_name_and_its_prefixes(event: str, patterns: list[str]) -> None:
    assert patterns_for(event) == patterns


def test_event_is_matched_by_name_without_being_decoded() -> None:
    index = TriggerIndex([Trigger("a", "app/x"), Trigger("b", "app/*"), Trigger("c", "app/y"), Trigger("d", "app*")])
    found = index.match("app/x", never_decoded, NOW)
    assert (found.matched, found.filtered) == (["a", "b"], [])
    assert index.match("other", never_decoded, NOW).matched == []
    # A star that does not follow a separator is a letter.
    assert index.match("app*", never_decoded, NOW).matched == ["d"]


def test_function_with_several_fitting_triggers_is_matched_once_in_the_order_of_the_index() -> None:
    index = TriggerIndex(
        [
            Trigger("late", "app/*"),
            Trigger("many", "app/x.y", "event.data.n == 2"),
            Trigger("many", "app/x.*", "event.data.n == 1"),
            Trigger("many", "app/*"),
            Trigger("first", "app/x.y"),
            Trigger("late", "app/x.y"),
        ]
    )
    found = index.match("app/x.y", lambda: {"data": {"n": 1}}, NOW)
    assert (found.matched, found.filtered) == (["late", "many", "first"], [])


def test_event_is_decoded_once_for_all_expressions() -> None:
    decoded: list[int] = []

    def load() -> dict[str, Any]:
        decoded.append(1)
        return {}

    index = TriggerIndex([Trigger(n, "e", "event.data.x == null") for n in range(5)])
    assert index.match("e", load, NOW).matched == [0, 1, 2, 3, 4]
    assert len(decoded) == 1


def test_functions_turned_away_are_named_with_the_reason() -> None:
    index = TriggerIndex(
        [
            Trigger("filter", "e", "event.data.n > 5"),
            Trigger("error", "e", "event.data.s - 1 > 0 || event.data.s / 2"),
            Trigger("both", "e", "1 / 0"),
            Trigger("both", "e", "false"),
            Trigger("saved", "e", "1 / 0"),
            Trigger("saved", "e", "event.data.n == 1"),
            Trigger("broken", "e", "event.data."),
            Trigger("empty", "e", ""),
        ]
    )
    found = index.match("e", lambda: {"data": {"n": 1, "s": "x"}}, NOW)
    assert found.matched == ["saved", "empty"]
    assert [(f.function, f.reason) for f in found.filtered] == [
        ("filter", "filter"),
        ("error", "expression_error"),
        ("both", "expression_error"),
        ("broken", "expression_error"),
    ]
    assert found.filtered[0] == Filtered("filter", "filter", None)
    assert found.filtered[2].detail == "The expression failed: division by zero."


def test_expressions_of_triggers_know_the_time() -> None:
    index = TriggerIndex(
        [Trigger("a", "e", "now() >= date('2026-01-01')"), Trigger("b", "e", "now_plus('1h') < now()")]
    )
    assert index.match("e", dict, NOW).matched == ["a"]


def test_stored_wait_is_found_by_value_and_judged_without_the_run() -> None:
    stored = stored_wait("async.data.id == event.data.id && async.data.n > 1", b'{"data":{"id":"o-1","other":1}}')
    ending, other = {"data": {"id": "o-1", "n": 2}}, {"data": {"id": "o-1", "n": 1}}
    assert (stored.path, stored.value) == ("/data/id", wait_value("/data/id", ending))
    assert wait_matches(stored.expression, ending, NOW) == (True, None)
    assert wait_matches(stored.expression, other, NOW) == (False, None)
    assert wait_text(stored.expression) == "async.data.id == 'o-1' && async.data.n > 1"
    assert "other" not in stored.expression


def test_wait_that_nothing_can_end_is_found_by_no_event() -> None:
    stored = stored_wait("event.data.n == 2 && async.data.id == 1", b'{"data":{"n":1}}')
    assert stored.path is not None
    assert all(wait_value(stored.path, event) != stored.value for event in ({}, {"data": 1}, {"never": "never"}))
    assert not wait_matches(stored.expression, {"data": {"id": 1}}, NOW)[0]


def test_wait_without_an_equality_or_an_expression_is_tried_on_every_event() -> None:
    stored = stored_wait("async.data.n > 1", b"{}")
    assert (stored.path, stored.value) == (None, None)
    assert wait_matches(None, {}, NOW) == (True, None)


def test_path_too_long_for_the_index_is_not_used() -> None:
    assert stored_wait(f"async.{'a' * 400} == 1", b"{}").path is None
