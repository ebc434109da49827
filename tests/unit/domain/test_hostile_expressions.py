"""Whatever a user writes, an expression gives a value or a reason, and its steps bound its work.

Work is counted, not timed: in calls of functions of Python, and in characters for what one such call reads. The figure
that turns steps into seconds stands beside `STEPS`.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal

import pytest

from app.domain.expressions import ExpressionFailed, ExpressionRefused, bind_event, compile_expression
from app.domain.expressions import evaluate as evaluating
from app.domain.expressions.evaluate import close_over
from app.domain.expressions.functions import FUNCTIONS
from app.domain.expressions.parse import MOST_NODES, parse
from app.domain.expressions.values import STEPS, Missing, Spent
from app.domain.flow.keys import INVALID, key_of, key_or_bypass
from app.domain.flow.priority import head_start
from app.domain.limits import MAX_PRIORITY_SECONDS
from app.domain.matching import Trigger, TriggerIndex, stored_wait, wait_matches, wait_text
from tests.unit.domain.hostile_expressions import event, expression

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
SEED = int(os.environ.get("STEPWELL_TEST_SEED", "20261123"))
#: Expressions drawn, in parts that processes may share.
PARTS, IN_PART = (20, 1_000) if IS_FULL else (4, 100)
NOW = datetime(2026, 11, 23, tzinfo=UTC)
EVENT = event()
PAYLOAD = json.dumps(EVENT).encode()
#: Calls of Python's functions that a step may stand for: a closure, what it asks of a value, and its charge.
_CALLS_PER_STEP = 12


#: How a failure names what Python itself gave up on, and what that may be.
_OF_PYTHON = re.compile(r"failed on this event \((\w+)\)")
_EXPECTED = {"RecursionError", "OverflowError", "MemoryError"}


@dataclass
class Counted:
    """What one evaluation cost: `steps` charged and `calls` made; `value` is None when the budget was used up."""

    steps: int
    calls: int
    is_spent: bool


def counted(text: str, given: dict[str, Any] = EVENT) -> Counted:
    """Evaluate under the profiler, which sees every call."""
    run = close_over(parse(text, ("event",)), ("event",))
    frame: list[Any] = [STEPS, NOW, given]
    calls = 0

    def count(_frame: Any, what: str, _arg: Any) -> None:
        nonlocal calls
        calls += what in {"call", "c_call"}

    is_spent = False
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run(frame)
    except Spent:
        is_spent = True
    except (RecursionError, OverflowError, MemoryError):
        pass  # `evaluate` makes a failure of them.
    finally:
        sys.setprofile(before)
    return Counted(STEPS - frame[0], calls, is_spent)


Way = Literal["refused", "failed", "value"]


def way_of(text: str) -> Way:
    """What becomes of an expression; anything but a value or one of the two errors is raised."""
    try:
        compiled = compile_expression(text)
    except ExpressionRefused as refused:
        assert refused.code in {"expression_invalid", "expression_too_costly"}
        assert refused.message.endswith(".")
        return "refused"
    try:
        value = compiled.evaluate({"event": EVENT}, NOW)
    except ExpressionFailed as failed:
        assert str(failed).endswith(".")
        said = _OF_PYTHON.search(str(failed))
        assert said is None or said[1] in _EXPECTED, f"{text}: {failed}"
        assert compiled.judge({"event": EVENT}, NOW) == (False, str(failed))
        return "failed"
    assert not isinstance(value, Missing)
    assert compiled.judge({"event": EVENT}, NOW)[1] is None
    return "value"


@pytest.mark.parametrize("part", range(PARTS))
def test_an_expression_gives_a_value_or_a_reason_and_its_steps_bound_its_work(part: int) -> None:
    dice = Random(SEED + part)
    seen: dict[Way, int] = {"refused": 0, "failed": 0, "value": 0}
    for _ in range(IN_PART):
        text = expression(dice)
        way = way_of(text)
        seen[way] += 1
        if way != "refused":
            cost = counted(text)
            assert cost.calls <= _CALLS_PER_STEP * (min(cost.steps, STEPS) + 10 * MOST_NODES), text
    assert min(seen.values()) > IN_PART // 50, seen


@pytest.mark.parametrize("part", range(PARTS))
def test_every_part_of_the_engine_that_asks_an_expression_gets_an_answer(part: int) -> None:
    dice = Random(SEED + 1_000 + part)
    for _ in range(IN_PART // 2):
        text = expression(dice)
        index = TriggerIndex([Trigger("f", "shop/sent", text)])
        matches = index.match("shop/sent", lambda: EVENT, NOW)
        assert len(matches.matched) + len(matches.filtered) == 1
        assert all(one.reason in {"filter", "expression_error"} for one in matches.filtered)
        key = key_of(text, EVENT)
        assert isinstance(key, str)
        assert key_or_bypass(text, EVENT) in {key, None}
        assert abs(head_start(text, EVENT).total_seconds()) <= MAX_PRIORITY_SECONDS


@pytest.mark.parametrize("part", range(PARTS))
def test_a_wait_for_anything_is_refused_or_judged(part: int) -> None:
    dice = Random(SEED + 2_000 + part)
    for _ in range(IN_PART // 2):
        text = expression(dice, names=("event", "async"))
        try:
            bound = bind_event(text, EVENT)
        except ExpressionRefused:
            continue
        is_match, reason = bound.judge(EVENT, NOW)
        assert not (is_match and reason)
        assert not (bound.never and is_match)
        stored = stored_wait(text, PAYLOAD)
        assert wait_matches(stored.expression, EVENT, NOW)[0] == is_match, text
        assert wait_text(stored.expression)


LONG: dict[str, Any] = {
    "text": "a" * 1_000_000,
    "same": "a" * 999_999 + "a",
    "end": "a" * 500 + "b" + "a" * 499,
    "short": "a" * 29_000,
    "part": "a" * 49 + "b" + "a" * 49,
    "letters": "".join(Random(1).choice("ab") for _ in range(100_000)),
    "big": list(range(100_000)),
    "texts": ["a" * 299_999 + "b"],
    "other": "a" * 300_000,
    "patterns": [f"(?i)[\\pL\\pN]{{30}}q{n}" for n in range(2_000)],
    "refused": [f"(?i)\\PL{{50}}q{n}" for n in range(2_000)],
    "zones": [f"Area/X{n}" for n in range(20_000)],
    "spans": ["1h1m1s1ms1us" * 8] * 100_000,
    "json": "[" * 900 + "]" * 900,
}


@pytest.mark.parametrize(
    "text",
    [
        "event.big.exists(x, event.text.startsWith(event.same) && false)",
        "event.big.exists(x, event.text.endsWith(event.same) && false)",
        "event.big.exists(x, event.other in event.texts)",
        "event.big.exists(x, event.short.contains(event.part))",
        "event.big.exists(x, event.short.indexOf(event.part) == 1)",
        "event.big.exists(x, event.short.lastIndexOf(event.part) == 1)",
        "event.big.exists(x, event.short.split(event.part) == 1)",
        "event.big.exists(x, event.short.replace(event.part, '') == 1)",
        "event.big.exists(x, event.text.lastIndexOf(event.end) == 1)",
        "event.letters.matches('(a|b)*a(a|b){200}c')",
        "event.letters.matches('(([ab]*a){10}[ab]{90}){2}c')",
        "event.patterns.exists(p, 'a'.matches(p))",
        "event.refused.exists(p, 'a'.matches(p))",
        "event.big.exists(x, json_parse(event.json) == 1)",
    ],
)
def test_work_that_one_call_hides_is_charged_until_the_budget_ends_it(text: str) -> None:
    cost = counted(text, LONG)

    assert cost.is_spent
    # Each turn of the loop makes a dozen; what one of them hides is up to a tenth of a millisecond, so turns are few.
    assert cost.calls < 40_000


@pytest.mark.parametrize(
    "text", ["event.zones.exists(z, now().getHours(z) == 99)", "event.spans.exists(s, duration(s) == 1)"]
)
def test_work_of_many_small_calls_is_charged_until_the_budget_ends_it(text: str) -> None:
    cost = counted(text, LONG)

    assert cost.is_spent
    assert cost.calls < 3 * STEPS


#: Functions that look at a bounded part of a value, however long it is.
_CONSTANT = {
    "size",
    "charAt",
    "type",
    "dyn",
    "int",
    "uint",
    "double",
    "bool",
    "date",
    "timestamp",
    "duration",
    "string",
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_that_reads_a_long_text_is_charged_for_it(name: str) -> None:
    function = FUNCTIONS[name]
    if name in _CONSTANT or function.most == 0 or name.startswith(("get", "now_")):
        return
    arguments = {"substring": "1", "matches": "'b'", "replace": "'b', 'c'", "split": "'b'", "join": "'-'"}
    # The text that is searched is long, and what is compared with its beginning or end is.
    other = arguments.get(name, "event.text" if function.fewest > 1 else "")
    target = "[event.text]" if name == "join" else "event.text"
    call = f"{name}({target})" if function.plain else f"{target}.{name}({other})"
    cost = counted(call, {"text": "a" * 640_000})

    assert cost.steps >= 640_000 // 64 - 10, call


@pytest.mark.parametrize("text", ["'a'.matches('(?i)" + "\\\\pL" * 51 + "')", " || ".join(
    f"event.text.matches('(?i).{{900}}{n}')" for n in range(10)
)], ids=["classes", "together"])  # fmt: skip
def test_patterns_that_take_long_to_compile_are_refused(text: str) -> None:
    with pytest.raises(ExpressionRefused):
        compile_expression(text)


def test_a_value_of_too_many_parts_is_no_key() -> None:
    assert key_of("event.big", LONG) == INVALID
    assert key_or_bypass("event.big", LONG) == INVALID
    assert key_of("event.few", {"few": [1, 2]}) == "[1 2]"


@pytest.mark.parametrize("raised", [RecursionError, OverflowError, MemoryError], ids=lambda error: str(error.__name__))
def test_what_python_itself_gives_up_on_is_a_failure_of_the_expression(
    monkeypatch: pytest.MonkeyPatch, raised: type[Exception]
) -> None:
    def gives_up(*_: Any) -> Callable[..., Any]:
        raise raised

    monkeypatch.setattr(evaluating, "is_equal", gives_up)
    with pytest.raises(ExpressionFailed, match=raised.__name__):
        compile_expression("event.data.list == event.data.map").evaluate({"event": EVENT}, NOW)
