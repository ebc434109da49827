"""What both PyPI apps of the matrix share: the options of the catalogue as the SDK writes them."""

import datetime as dt
import logging
from typing import Any

import inngest
from inngest.experimental.ai import anthropic, openai

from tests.protocol.apps import scripted

logging.basicConfig(level=logging.WARNING)
logging.getLogger("scripted").setLevel(logging.INFO)


def client(suffix: str = "") -> inngest.Inngest:
    """The app's client."""
    return inngest.Inngest(app_id=scripted.APP_ID + suffix, logger=logging.getLogger("scripted"))


def _seconds(value: int | None) -> dt.timedelta | None:
    return None if value is None else dt.timedelta(seconds=value)


def triggers(function: dict[str, Any]) -> list[inngest.TriggerCron | inngest.TriggerEvent]:
    """The triggers of a function."""
    return [
        inngest.TriggerCron(cron=trigger["cron"])
        if "cron" in trigger
        else inngest.TriggerEvent(event=trigger["event"], expression=trigger.get("if"))
        for trigger in function["triggers"]
    ]


def options(given: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `create_function`."""
    written: dict[str, Any] = {}
    for name, value in given.items():
        match name:
            case "retries" | "idempotency":
                written[name] = value
            case "concurrency":
                written[name] = [inngest.Concurrency(**one) for one in value]
            case "throttle":
                written[name] = inngest.Throttle(
                    limit=value["limit"], period=dt.timedelta(seconds=value["period_s"]), key=value.get("key")
                )
            case "rate_limit":
                written[name] = inngest.RateLimit(
                    limit=value["limit"], period=dt.timedelta(seconds=value["period_s"]), key=value.get("key")
                )
            case "debounce":
                written[name] = inngest.Debounce(period=dt.timedelta(seconds=value["period_s"]), key=value.get("key"))
            case "priority":
                written[name] = inngest.Priority(run=value)
            case "batch":
                written["batch_events"] = inngest.Batch(
                    max_size=value["max"], timeout=_seconds(value["timeout_s"]), key=value.get("key")
                )
            case "singleton":
                written[name] = inngest.Singleton(mode=value["mode"], key=value.get("key"))
            case "cancel":
                written[name] = [
                    inngest.Cancel(event=one["event"], if_exp=one.get("if"), timeout=_seconds(one.get("timeout_s")))
                    for one in value
                ]
            case "timeouts":
                written[name] = inngest.Timeouts(
                    start=_seconds(value.get("start_s")), finish=_seconds(value.get("finish_s"))
                )
            case _:
                raise ValueError(f"no option {name}")
    return written


def frame(ctx: Any, function: dict[str, Any]) -> scripted.Frame:
    """What a context of the SDK says."""
    events = [{"name": event.name, "data": dict(event.data), "id": event.id, "ts": event.ts} for event in ctx.events]
    event = {"name": ctx.event.name, "data": dict(ctx.event.data), "id": ctx.event.id, "ts": ctx.event.ts}
    return scripted.Frame(function["id"], ctx.run_id, ctx.attempt, event, events)


def own_error(error: scripted.ScriptedError) -> Exception:
    """The SDK's own error for what a script fails with."""
    if error.kind == "non_retriable":
        return inngest.NonRetriableError(str(error), quiet=True)
    if error.kind == "retry_after":
        return inngest.RetryAfterError(str(error), dt.timedelta(seconds=error.after_s), quiet=True)
    return error


def adapter(op: dict[str, Any]) -> Any:
    """The SDK's adapter for a provider."""
    made = anthropic.Adapter if op["provider"] == "anthropic" else openai.Adapter
    return made(auth_key="secret", base_url=op["url"], model=op["body"]["model"])


def moment(ms: int) -> dt.datetime:
    """A moment from now."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(milliseconds=ms)


def event(wanted: dict[str, Any]) -> inngest.Event:
    """An event to be sent."""
    return inngest.Event(**wanted)


def caught(error: Exception) -> dict[str, Any]:
    """What user code sees of an error it catches."""
    return {"name": getattr(error, "name", type(error).__name__), "message": str(error)}
