"""Settings that do not go together: each is refused, or warned of, with its code and a sentence."""

import json
from typing import Any

import pytest

from app.domain.errors import RegistrationRefused
from app.domain.limits import PLANS
from app.domain.protocol.config_fields import Checks
from app.domain.protocol.registration import Registration, read_registration

BATCH: dict[str, Any] = {"batchEvents": {"maxSize": 5, "timeout": "5s"}}
CRON: dict[str, Any] = {"triggers": [{"cron": "0 * * * *"}]}


def read(plan: str | None = None, **more: Any) -> Registration:
    """A registration of one function."""
    step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": "http://app.test/x?fnId=f&stepId=step"}}
    function = {"id": "f", "name": "f", "triggers": [{"event": "e"}], "steps": {"step": step}, **more}
    body = json.dumps({"appname": "shop", "url": "http://app.test/x", "functions": [function]})
    return read_registration(body.encode(), checks=Checks(plan=PLANS[plan] if plan else None))


def problems_of(refused: RegistrationRefused) -> list[dict[str, str]]:
    found = refused.details["problems"]
    assert isinstance(found, list)
    return found


def warned(plan: str | None = None, **more: Any) -> list[tuple[str, str]]:
    return [(w.field, w.code) for w in read(plan, **more).warnings]


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"cancel": [{"event": "stop"}]}, "cancel"),
        ({"debounce": {"period": "5s"}}, "debounce"),
        ({"singleton": {"mode": "skip"}}, "singleton"),
        ({"priority": {"run": "event.data.p"}}, "priority.run"),
    ],
)
def test_a_batched_function_is_refused_with_what_belongs_to_single_events(more: dict[str, Any], where: str) -> None:
    with pytest.raises(RegistrationRefused) as caught:
        read(**BATCH, **more)
    (problem,) = problems_of(caught.value)
    assert (problem["field"], problem["code"]) == (where, "combo_unsupported")
    assert problem["message"] == f"A batched function cannot have {where}."


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({**BATCH, "rateLimit": {"limit": 1, "period": "1h"}}, [("rateLimit", "no_effect")]),
        ({**BATCH, "idempotency": "event.data.id"}, [("rateLimit", "no_effect")]),
        (
            {"idempotency": "event.data.id", "rateLimit": {"limit": 1, "period": "1h"}},
            [("rateLimit", "no_effect")],
        ),
        ({**BATCH, "concurrency": {"limit": 2, "key": "event.data.u"}}, [("concurrency.key", "first_event_only")]),
        (
            {**BATCH, "throttle": {"limit": 2, "period": "1m", "key": "event.data.u"}},
            [("throttle.key", "first_event_only")],
        ),
        ({"concurrency": [{"limit": 5}, {"limit": 2}]}, [("concurrency", "no_effect")]),
        ({"concurrency": [{"limit": 5}, {"limit": 2, "key": "event.data.u"}]}, []),
        ({"debounce": {"period": "1m", "timeout": "10s"}}, [("debounce.period", "no_effect")]),
        ({"debounce": {"period": "1m", "timeout": "10m"}}, []),
        ({**CRON, "rateLimit": {"limit": 1, "period": "1h"}}, [("rateLimit", "crons_pass")]),
        ({**CRON, "debounce": {"period": "5s"}}, [("debounce", "crons_pass")]),
        ({**CRON, **BATCH}, [("batchEvents", "crons_pass")]),
        ({"triggers": [{"cron": "0 * * * *"}, {"event": "e"}], "debounce": {"period": "5s"}}, []),
    ],
)
def test_what_works_otherwise_than_it_reads_is_warned_of(more: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert warned(**more) == expected


def test_a_plan_is_compared_with_what_a_function_asks_for() -> None:
    assert warned("free", concurrency=50) == [("concurrency.limit", "plan_limit")]
    assert warned("free", concurrency=5) == []
    assert warned("free", concurrency={"limit": 50, "key": "event.data.u"}) == []
    with pytest.raises(RegistrationRefused) as caught:
        read("free", batchEvents={"maxSize": 6, "timeout": "5s"})
    assert caught.value.code == "plan_upgrade_required"


@pytest.mark.parametrize(
    ("backoff", "said"),
    [
        ({"initial": "0s"}, "must be a time"),
        ({"initial": "5s", "factor": 0.5}, "from 1 to 100"),
        ({"initial": "5s", "factor": "2"}, "is a number"),
        ({"initial": "5s", "factor": True}, "is a number"),
        ({"initial": "10m", "cap": "1m"}, "shorter than the first"),
        ({"initial": "5s", "cap": "2d"}, "must be a time"),
        ({"factor": 3}, "is missing"),
    ],
)
def test_a_retry_policy_that_cannot_be_kept_is_refused(backoff: dict[str, Any], said: str) -> None:
    retries = {"attempts": 3, "backoff": backoff}
    runtime = {"type": "http", "url": "http://app.test/x?fnId=f&stepId=step"}
    with pytest.raises(RegistrationRefused) as caught:
        read(steps={"step": {"id": "step", "name": "step", "runtime": runtime, "retries": retries}})
    assert caught.value.code == "backoff_invalid"
    assert said in problems_of(caught.value)[0]["message"]
