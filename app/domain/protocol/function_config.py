"""One function as an SDK registers it (protocol 8): read leniently, checked strictly.

SDKs differ in key order, letter case, nulls and shapes; all of that is evened out here. What protocol 8.2 refuses becomes a
`Problem` with a stable code, what it ignores becomes a warning. Reading never stops at the first problem, so that a
developer sees all of them at once. Comes from and goes back to `registration.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from app.domain import canonical
from app.domain.backoff import complaint_about
from app.domain.durations import parse_when
from app.domain.errors import DurationRefused
from app.domain.limits import (
    DEFAULT_LONG_WAIT,
    DEFAULT_RETRIES,
    IDEMPOTENCY_WINDOW,
    MAX_BATCH_WAIT,
    MAX_CANCEL_RULES,
    MAX_CONCURRENCY_RULES,
    MAX_CRON_CHARS,
    MAX_CRON_JITTER,
    MAX_DEBOUNCE_PERIOD,
    MAX_RATE_PERIOD,
    MAX_RETRIES,
    MAX_RETRY_DELAY,
    MAX_SLUG_CHARS,
    MAX_THROTTLE_PERIOD,
    MAX_TRIGGER_NAME_CHARS,
    MAX_TRIGGERS,
    MIN_BATCH_SIZE,
    MIN_BATCH_WAIT,
    MIN_CRON_JITTER,
    MIN_PERIOD,
    MIN_RETRY_DELAY,
)
from app.domain.protocol.addresses import is_app_address, normalise_url, same_place
from app.domain.protocol.combinations import judge
from app.domain.protocol.config_fields import CONTROL, Checks, Fields, Findings, Problem, as_object, clean, lower
from app.domain.settings import (
    Backoff,
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


@dataclass(frozen=True, slots=True)
class FunctionConfig:
    """A function's settings. `raw` is the canonical JSON of the registered object, for storage and for people;
    `read_stored` makes the same value of it again.

    `retries` are tries after the first, 0 … 20, `backoff` the waits between them (None: the protocol's). `concurrency` limits calls, `run_concurrency` whole runs.
    `idempotency` is contained in `rate_limit` already. `checkpoint` is informational, canonical JSON.
    """

    slug: str
    name: str
    url: str
    raw: bytes
    is_connect: bool = False
    triggers: tuple[Trigger, ...] = ()
    retries: int = DEFAULT_RETRIES
    backoff: Backoff | None = None
    concurrency: tuple[Concurrency, ...] = ()
    run_concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    rate_limit: RateLimit | None = None
    idempotency: str | None = None
    debounce: Debounce | None = None
    priority: str | None = None
    batch: Batch | None = None
    cancel: tuple[CancelRule, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    singleton: Singleton | None = None
    checkpoint: bytes | None = None


def read_function(value: object, *, app_url: str, checks: Checks, findings: Findings) -> FunctionConfig | None:
    """One registered function; None when there is too little to speak of. Problems go to `findings`."""
    if not isinstance(value, dict):
        findings.problems.append(Problem("", "functions", "config_invalid", "A function is not an object."))
        return None
    return _Reader(value, app_url, checks, findings).read()


def read_stored(raw: bytes) -> FunctionConfig:
    """The config whose `raw` was stored; it was checked when it came, so findings are not asked for again."""
    config = read_function(canonical.decode(raw), app_url="", checks=Checks(), findings=Findings())
    if config is None:
        raise ValueError("not a stored function")
    return config


def placeless(raw: bytes, url: str) -> bytes:
    """A stored config with all names of this machine made one, to tell whether it says the same as another."""
    return raw.replace(canonical.text(url), canonical.text(same_place(url)))


class _Reader(Fields):
    """Reads one function, one method for each setting."""

    def read(self) -> FunctionConfig:
        if not self.slug or len(self.slug) > MAX_SLUG_CHARS or CONTROL.search(self.slug):
            self.wrong("id", f"A function needs an id of 1 to {MAX_SLUG_CHARS} characters without control characters.")
        step = self._step()
        runtime = as_object(step.get("runtime"))
        url = runtime.get("url") or self.app_url
        if not isinstance(url, str) or not is_app_address(url):
            self.wrong(
                "steps.step.runtime.url", "The function's URL must begin with http://, https://, ws:// or wss://."
            )
            url = self.app_url
        batch = self._batch()
        idempotency = self.expression("idempotency", self.fields.get("idempotency"))
        config = FunctionConfig(
            slug=self.slug,
            name=clean(self.fields.get("name")) or self.slug,
            url=normalise_url(url),
            raw=self._raw(step, runtime, url),
            is_connect=str(runtime.get("type") or "http").lower() == "ws",
            triggers=self._triggers(),
            retries=self._retries(step),
            backoff=self._backoff(step),
            concurrency=self._concurrency("step"),
            run_concurrency=next(iter(self._concurrency("fn")), None),
            throttle=self._throttle(),
            rate_limit=self._rate_limit(idempotency),
            idempotency=idempotency,
            debounce=self._debounce(),
            priority=self.expression("priority.run", self.section("priority").get("run")),
            batch=batch,
            cancel=self._cancel(),
            timeouts=Timeouts(
                start=self.period("timeouts.start", self.section("timeouts").get("start")),
                finish=self.period("timeouts.finish", self.section("timeouts").get("finish")),
            ),
            singleton=self._singleton(),
            checkpoint=canonical.encode(self.fields["checkpoint"]) if self.fields.get("checkpoint") else None,
        )
        for finding in judge(config, self.checks.plan):
            if finding.is_refusal:
                self.wrong(finding.where, finding.message, finding.code)
            else:
                self.warn(finding.where, finding.message, finding.code)
        return config

    def _step(self) -> dict[str, Any]:
        steps = self.fields.get("steps")
        # Old SDKs use another key than `step`; the object holds exactly one either way.
        if not isinstance(steps, dict) or len(steps) != 1:
            self.wrong("steps", "A function needs exactly one entry in steps.")
            return {}
        return as_object(next(iter(steps.values())))

    def _raw(self, step: dict[str, Any], runtime: dict[str, Any], url: str) -> bytes:
        """The object as sent, but with its address in one form: `?deployId=…` would make each deploy look new."""
        stored = dict(self.value)
        for key in stored:
            if key.lower() == "steps":
                stored[key] = {"step": {**step, "runtime": {**runtime, "url": normalise_url(url)}}}
        return canonical.encode(stored)

    def _triggers(self) -> tuple[Trigger, ...]:
        triggers: list[Trigger] = []
        for index, item in enumerate(self.items("triggers")):
            where = f"triggers[{index}]"
            fields = lower(item) if isinstance(item, dict) else {}
            event, cron = fields.get("event") or None, fields.get("cron") or None
            if (event is None) == (cron is None):
                self.wrong(where, "A trigger needs an event or a cron, not both and not neither.")
            elif cron is not None:
                triggers.append(self._cron(where, cron, fields))
            else:
                if not self.is_pattern(event):
                    self.wrong(f"{where}.event", _EVENT_NAME, "event_name_invalid")
                expression = self.expression(f"{where}.expression", fields.get("expression"))
                triggers.append(Trigger(event=clean(event), expression=expression))
        if len(triggers) > MAX_TRIGGERS:
            self.wrong("triggers", f"A function may have {MAX_TRIGGERS} triggers.")
        if len(set(triggers)) < len(triggers):
            self.wrong("triggers", "Two triggers are the same.")
        crons = [trigger.cron for trigger in triggers if trigger.cron is not None]
        if len(set(crons)) < len(crons):
            self.wrong("triggers", "Two triggers have the same cron.", "schedule_invalid")
        return tuple(triggers)

    def _cron(self, where: str, cron: object, fields: Mapping[str, Any]) -> Trigger:
        if not isinstance(cron, str) or len(cron) > MAX_CRON_CHARS:
            self.wrong(f"{where}.cron", f"A cron is a text of at most {MAX_CRON_CHARS} characters.", "schedule_invalid")
            return Trigger(cron="")
        complaint = self.checks.cron(cron) if self.checks.cron else None
        if complaint:
            self.wrong(f"{where}.cron", complaint, "schedule_invalid")
        jitter = self.period(
            f"{where}.jitter", fields.get("jitter"), MIN_CRON_JITTER, MAX_CRON_JITTER, code="schedule_invalid"
        )
        return Trigger(cron=cron, jitter=jitter)

    def _retries(self, step: Mapping[str, Any]) -> int:
        own = step.get("retries")
        asked = own.get("attempts") if isinstance(own, dict) else own
        if asked is None:
            general = self.fields.get("retries")
            asked = general.get("attempts") if isinstance(general, dict) else general
        if asked is None:
            return DEFAULT_RETRIES
        if type(asked) is not int or asked < 0:
            self.wrong("retries", f"Retries are a number from 0 to {MAX_RETRIES}.")
            return DEFAULT_RETRIES
        if asked > MAX_RETRIES:
            self.warn("retries", f"{asked} retries were asked for; {MAX_RETRIES} are the most and are used.")
        return min(asked, MAX_RETRIES)

    def _backoff(self, step: Mapping[str, Any]) -> Backoff | None:
        """The waits between retries, an addition of Stepwell: `retries: {attempts, backoff: {initial, factor, cap}}`."""
        fields = as_object(as_object(step.get("retries")).get("backoff"))
        if not fields:
            return None
        where = "retries.backoff"
        initial = self.period(
            f"{where}.initial", fields.get("initial"), MIN_RETRY_DELAY, MAX_RETRY_DELAY, code=_BACKOFF, is_needed=True
        )
        cap = self.period(f"{where}.cap", fields.get("cap"), MIN_RETRY_DELAY, MAX_RETRY_DELAY, code=_BACKOFF)
        factor = fields.get("factor", 2)
        if isinstance(factor, msgspec.Raw):  # numbers that are no integers stay as they were written
            factor = float(bytes(factor))
        complaint = complaint_about(initial, factor, cap) if initial is not None else None
        if complaint:
            self.wrong(where, complaint, _BACKOFF)
        if initial is None or complaint:
            return None
        return Backoff(initial, float(factor), cap or MAX_RETRY_DELAY)

    def _concurrency(self, kind: str) -> tuple[Concurrency, ...]:
        """The limits of one kind: `step` for calls (every older form), `fn` for whole runs."""
        value = self.fields.get("concurrency")
        if isinstance(value, dict) and not {"fn", "step"}.isdisjoint(key.lower() for key in value):
            value = lower(value).get(kind)
        elif kind == "fn":
            return ()
        if value is None:
            return ()
        rules = value if isinstance(value, list) else [value]
        most = 1 if kind == "fn" else MAX_CONCURRENCY_RULES
        if len(rules) > most:
            self.wrong("concurrency", f"A function may have {most} concurrency limits.", _CONCURRENCY)
        found = [self._concurrency_rule(rule, kind) for rule in rules]
        return tuple(rule for rule in found if rule is not None)

    def _concurrency_rule(self, rule: object, kind: str) -> Concurrency | None:
        fields = lower(rule) if isinstance(rule, dict) else {"limit": rule}
        limit = fields.get("limit") or 0
        if type(limit) is not int or limit < 0 or (kind == "fn" and limit == 0):
            self.wrong("concurrency.limit", "A concurrency limit is a whole number, 0 for none.", _CONCURRENCY)
            return None
        try:
            # go writes these with a capital letter.
            scope = Scope(str(fields.get("scope") or "fn").lower())
        except ValueError:
            self.wrong("concurrency.scope", "A concurrency scope is fn, env or account.", _CONCURRENCY)
            return None
        key = self.expression("concurrency.key", fields.get("key"))
        if scope is not Scope.FUNCTION and key is None:
            self.wrong("concurrency.key", f"A concurrency limit over {scope} needs a key.", _CONCURRENCY)
        return Concurrency(limit, key, scope) if limit else None

    def _throttle(self) -> Throttle | None:
        fields = self.section("throttle")
        if not fields:
            return None
        period = self.period("throttle.period", fields.get("period"), MIN_PERIOD, MAX_THROTTLE_PERIOD, is_needed=True)
        return Throttle(
            limit=max(self.count("throttle.limit", fields.get("limit"), default=1), 1),
            # Whole seconds, protocol 8.2.
            period=timedelta(seconds=period // timedelta(seconds=1)) if period else MIN_PERIOD,
            burst=self.count("throttle.burst", fields.get("burst"), default=0),
            key=self.expression("throttle.key", fields.get("key")),
        )

    def _rate_limit(self, idempotency: str | None) -> RateLimit | None:
        fields = self.section("ratelimit")
        if fields and idempotency is not None:
            self.warn("rateLimit", "idempotency takes the place of rateLimit, which has no effect.")
        if idempotency is not None:
            return RateLimit(1, IDEMPOTENCY_WINDOW, idempotency)
        if not fields:
            return None
        limit = self.count("rateLimit.limit", fields.get("limit"), default=0)
        if limit < 1:
            self.wrong("rateLimit.limit", "A rate limit is 1 or more.")
        least = timedelta(microseconds=1)
        period = self.period("rateLimit.period", fields.get("period"), least, MAX_RATE_PERIOD, is_needed=True)
        key = self.expression("rateLimit.key", fields.get("key"))
        return RateLimit(max(limit, 1), period or MAX_RATE_PERIOD, key)

    def _debounce(self) -> Debounce | None:
        fields = self.section("debounce")
        if not fields:
            return None
        period = self.period("debounce.period", fields.get("period"), MIN_PERIOD, MAX_DEBOUNCE_PERIOD, is_needed=True)
        return Debounce(
            period=period or MIN_PERIOD,
            key=self.expression("debounce.key", fields.get("key")),
            timeout=self.period("debounce.timeout", fields.get("timeout")),
        )

    def _batch(self) -> Batch | None:
        fields = self.section("batchevents")
        if not fields:
            return None
        size = fields.get("maxsize")
        if type(size) is not int or size < MIN_BATCH_SIZE:
            self.wrong("batchEvents.maxSize", f"A batch holds {MIN_BATCH_SIZE} events or more.", "batch_size_invalid")
            size = MIN_BATCH_SIZE
        plan = self.checks.plan
        if plan is not None and size > plan.batch_size:
            message = f"The plan {plan.name} allows batches of {plan.batch_size} events."
            self.wrong("batchEvents.maxSize", message, "plan_upgrade_required")
        timeout = self.period(
            "batchEvents.timeout",
            fields.get("timeout"),
            MIN_BATCH_WAIT,
            MAX_BATCH_WAIT,
            code="batch_timeout_invalid",
            is_needed=True,
            go_units=True,
        )
        return Batch(
            max_size=size,
            timeout=timeout or MIN_BATCH_WAIT,
            key=self.expression("batchEvents.key", fields.get("key"), code="batch_key_expression_invalid"),
            condition=self.expression("batchEvents.if", fields.get("if"), code="batch_if_expression_invalid"),
        )

    def _cancel(self) -> tuple[CancelRule, ...]:
        rules: list[CancelRule] = []
        items = self.items("cancel")
        if len(items) > MAX_CANCEL_RULES:
            self.wrong("cancel", f"A function may have {MAX_CANCEL_RULES} cancel rules.")
        for index, item in enumerate(items):
            fields = lower(item) if isinstance(item, dict) else {}
            event = clean(fields.get("event"))
            if not event or len(event) > MAX_TRIGGER_NAME_CHARS:
                self.wrong(f"cancel[{index}].event", _EVENT_NAME, "event_name_invalid")
                continue
            expression = self.expression(f"cancel[{index}].if", fields.get("if"), has_async=True)
            rules.append(CancelRule(event, self._until(f"cancel[{index}].timeout", fields.get("timeout")), expression))
        return tuple(rules)

    def _until(self, where: str, value: object) -> timedelta | datetime:
        if value is None or value == "":
            return DEFAULT_LONG_WAIT
        try:
            return parse_when(value if isinstance(value, str) else repr(value))
        except DurationRefused as refused:
            self.wrong(where, refused.message)
            return DEFAULT_LONG_WAIT

    def _singleton(self) -> Singleton | None:
        fields = self.section("singleton")
        if not fields:
            return None
        try:
            mode = SingletonMode(str(fields.get("mode") or "").lower())
        except ValueError:
            self.wrong("singleton.mode", "A singleton's mode is skip or cancel.")
            mode = SingletonMode.SKIP
        return Singleton(mode, self.expression("singleton.key", fields.get("key")))


_CONCURRENCY = "concurrency_limit_invalid"
_BACKOFF = "backoff_invalid"
_EVENT_NAME = (
    f"An event name has 1 to {MAX_TRIGGER_NAME_CHARS} characters; in a trigger it may end in * after a slash or a dot."
)
