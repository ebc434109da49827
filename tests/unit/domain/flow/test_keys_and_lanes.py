"""Keys of limits, and the lanes that follow from them."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from app.domain.flow.concurrency import Kind, limits_of
from app.domain.flow.keys import INVALID, key_of, key_or_bypass, shown
from app.domain.flow.lanes import Flow, flow_of, lane_of
from app.domain.flow.priority import head_start
from app.domain.ids import AccountId, EnvironmentId, FunctionId
from app.domain.protocol.config_fields import Checks, Findings
from app.domain.protocol.function_config import FunctionConfig, read_function
from app.domain.scope import Scope

SCOPE = Scope(AccountId(UUID(int=1)), EnvironmentId(UUID(int=2)))
FUNCTION = FunctionId(UUID(int=3))


def config(**settings: object) -> FunctionConfig:
    raw = {
        "id": "f",
        "triggers": [{"event": "x"}],
        "steps": {"step": {"runtime": {"url": "http://app.test/x"}}},
        **settings,
    }
    findings = Findings()
    found = read_function(raw, app_url="http://app.test/x", checks=Checks(), findings=findings)
    assert found is not None and findings.problems == []
    return found


def flow(**settings: object) -> Flow:
    read = config(**settings)
    found = flow_of(FUNCTION, read, read.priority)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), (1, "1"), (1.0, "1"), (True, "true"), (None, "<nil>"), ([1, "b"], "[1 b]")]
)
def test_a_key_is_written_as_go_would_print_it(value: object, text: str) -> None:
    assert key_of("event.data.k", {"data": {"k": value}}) == text


def test_an_expression_that_fails_counts_under_a_key_of_its_own() -> None:
    assert key_of("event.data.a / 0", {"data": {"a": 1}}) == INVALID


def test_false_bypasses_only_where_the_protocol_says_so() -> None:
    event = {"data": {"k": False}}
    assert key_or_bypass("event.data.k", event) is None
    assert key_of("event.data.k", event) == "false"


def test_long_keys_are_shown_short_and_stay_different() -> None:
    assert shown("x" * 500 + "a") != shown("x" * 500 + "b")
    assert len(shown("x" * 5000)) < 250
    assert "\x00" not in shown("a\x00b")


def test_a_function_without_limits_has_no_flow() -> None:
    read = config()
    assert flow_of(FUNCTION, read, read.priority) is None


def test_a_plain_limit_stays_on_the_plain_lane_so_that_it_holds_for_waiting_work() -> None:
    lanes = flow(concurrency=5).lanes(SCOPE, {"data": {}})
    assert lanes.run.id == lane_of(FUNCTION)
    assert lanes.run == flow(concurrency=5).plain_lane(SCOPE)
    assert lanes.first is None


def test_each_key_value_has_its_own_lane_and_count() -> None:
    limited = flow(concurrency={"limit": 2, "key": "event.data.user"})
    one, two = (limited.lanes(SCOPE, {"data": {"user": user}}).run for user in ("a", "b"))
    assert one.id != two.id
    assert {key.id for key in one.flow_keys}.isdisjoint(key.id for key in two.flow_keys)
    assert one == limited.lanes(SCOPE, {"data": {"user": "a"}}).run


def test_account_keys_are_shared_by_functions_and_environments_and_function_keys_are_not() -> None:
    rules = [{"limit": 2, "key": "event.data.u", "scope": "account"}, {"limit": 1, "key": "event.data.u"}]
    read = config(concurrency=rules)
    other = Flow(FunctionId(uuid4()), limits_of(FunctionId(uuid4()), read))
    elsewhere = Scope(SCOPE.account_id, EnvironmentId(uuid4()))
    mine = {k.scope: k.id for k in flow(concurrency=rules).lanes(SCOPE, {"data": {"u": "x"}}).run.flow_keys}
    theirs = {k.scope: k.id for k in other.lanes(elsewhere, {"data": {"u": "x"}}).run.flow_keys}
    assert mine["account"] == theirs["account"]
    assert mine["function"] != theirs["function"]


def test_environment_keys_end_at_the_environment() -> None:
    rule = {"limit": 2, "key": "'shared'", "scope": "env"}
    elsewhere = Scope(SCOPE.account_id, EnvironmentId(uuid4()))
    limited = flow(concurrency=rule)
    assert limited.lanes(SCOPE, {}).run.flow_keys != limited.lanes(elsewhere, {}).run.flow_keys


def test_two_limits_with_the_same_value_count_apart() -> None:
    lanes = flow(concurrency=[{"limit": 2, "key": "event.data.u"}, {"limit": 9, "key": "event.data.v"}])
    keys = lanes.lanes(SCOPE, {"data": {"u": "x", "v": "x"}}).run.flow_keys
    assert len({key.id for key in keys}) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"throttle": {"limit": 1, "period": "1s"}},
        {"priority": {"run": "event.data.p"}},
        {"concurrency": {"fn": [{"limit": 1}]}},
    ],
)
def test_first_items_stand_apart_where_starts_are_limited_or_ordered(settings: dict[str, object]) -> None:
    lanes = flow(**settings).lanes(SCOPE, {"data": {}})
    assert lanes.first is not None
    assert lanes.first.id != lanes.run.id
    assert lanes.first.is_gated


def test_keys_of_a_lane_are_in_the_order_in_which_they_are_locked() -> None:
    rules = [{"limit": 2, "key": "event.data.u", "scope": "account"}, {"limit": 1, "key": "event.data.u"}]
    for user in "abcdef":
        keys = flow(concurrency=rules).lanes(SCOPE, {"data": {"u": user}}).run.flow_keys
        assert [k.id for k in keys] == sorted(k.id for k in keys)


def test_a_changed_number_is_the_same_limit() -> None:
    before, after = (limits_of(FUNCTION, config(concurrency=n))[0] for n in (3, 7))
    assert before.id == after.id
    assert (before.cap, after.cap, before.kind) == (3, 7, Kind.CALLS)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(120, 120), (-30, -30), (99_999, 43_200), (-99_999, -43_200), ("high", 0), (True, 0), (1.5, 0), (2.0, 2)],
)
def test_priority_is_clipped_and_anything_but_an_integer_is_nothing(value: object, seconds: int) -> None:
    assert head_start("event.data.p", {"data": {"p": value}}) == timedelta(seconds=seconds)
