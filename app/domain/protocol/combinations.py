"""Which settings of a function do not go together (protocol 8.2, feature-semantics A5): refused, or warned of, at sync.

A combination that cannot work is refused with `combo_unsupported`. One that works otherwise than it reads is a warning with
a code of its own and a sentence, so that a developer hears of it when the app syncs and not when a run waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from app.domain.limits import PlanLimits
from app.domain.settings import Concurrency

if TYPE_CHECKING:
    from app.domain.protocol.function_config import FunctionConfig


@dataclass(frozen=True, slots=True)
class Finding:
    """One combination. `where` names the setting that is to be changed."""

    where: str
    code: str
    message: str
    is_refusal: bool = False


def judge(config: "FunctionConfig", plan: PlanLimits | None) -> Iterator[Finding]:
    """Everything there is to say about a function's settings together."""
    if config.batch is not None:
        yield from _of_batch(config)
    yield from _of_concurrency(config, plan)
    yield from _of_crons(config)
    debounce = config.debounce
    if debounce is not None and debounce.timeout is not None and debounce.timeout < debounce.period:
        yield Finding(
            "debounce.period",
            "no_effect",
            "The debounce's timeout is shorter than its period: every run starts at the timeout.",
        )


def _of_batch(config: "FunctionConfig") -> Iterator[Finding]:
    others = {
        "cancel": bool(config.cancel),
        "debounce": config.debounce is not None,
        "singleton": config.singleton is not None,
        "priority.run": config.priority is not None,
    }
    for name, is_set in others.items():
        if is_set:
            yield Finding(name, "combo_unsupported", f"A batched function cannot have {name}.", is_refusal=True)
    if config.rate_limit is not None:
        yield Finding(
            "rateLimit",
            "no_effect",
            "Batched functions are not rate limited; rateLimit and idempotency have no effect.",
        )
    keyed = [rule for rule in (*config.concurrency, config.run_concurrency) if rule is not None and rule.key]
    if keyed or (config.throttle is not None and config.throttle.key):
        yield Finding(
            "concurrency.key" if keyed else "throttle.key",
            "first_event_only",
            "The key of a batched function is that of the first event of each batch.",
        )


def _of_concurrency(config: "FunctionConfig", plan: PlanLimits | None) -> Iterator[Finding]:
    for one, other in combinations(config.concurrency, 2):
        if (one.scope, one.key) == (other.scope, other.key):
            yield Finding(
                "concurrency",
                "no_effect",
                f"Two concurrency limits count the same: only the lower one, {min(one.limit, other.limit)}, has an effect.",
            )
    most = None if plan is None else plan.concurrency
    if plan is not None and most is not None and any(_is_above(rule, most) for rule in config.concurrency):
        yield Finding(
            "concurrency.limit",
            "plan_limit",
            f"The plan {plan.name} allows {most} calls at once over all functions, which holds before this limit does.",
        )


def _is_above(rule: Concurrency, most: int) -> bool:
    return rule.key is None and rule.limit > most


def _of_crons(config: "FunctionConfig") -> Iterator[Finding]:
    if not config.triggers or any(trigger.cron is None for trigger in config.triggers):
        return
    passed = {
        "batchEvents": config.batch is not None,
        "rateLimit": config.rate_limit is not None,
        "debounce": config.debounce is not None,
    }
    for name, is_set in passed.items():
        if is_set:
            yield Finding(name, "crons_pass", f"Runs that a cron starts pass {name} by; it holds for invokes only.")
