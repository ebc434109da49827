"""The language in which the functions of the matrix are written once, to be executed by every SDK.

A script is a list of JSON objects. Each names what an SDK's user would write: `run("a")` is a `step.run` whose handler
notes in the ledger that it was executed. What a step gave is kept under its id (or `keep`) and is read by `var`.

In all texts `@@` stands for the prefix of the column's event names, `@app@` for its app id, `@other@` for the id of
another column's app and `@web@` for the address of the web server that plays a provider.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Op = dict[str, Any]
Script = Sequence[Op]


def _op(kind: str, **given: Any) -> Op:
    return {"op": kind, **{name.rstrip("_"): value for name, value in given.items() if value is not None}}


def var(name: str) -> dict[str, str]:
    """What the step `name` gave."""
    return {"$var": name}


def event(path: str) -> dict[str, str]:
    """A part of the run's event, such as `data.key`."""
    return {"$event": path}


def js(what: str) -> dict[str, str]:
    """A value that only JavaScript has: `undefined`, `date`, `negative zero`, `nan`, `map`."""
    return {"$js": what}


def run(
    step_id: str,
    *,
    gives: Any = None,
    size: int | None = None,
    takes_ms: int | None = None,
    until: dict[str, str] | None = None,
    fails: Op | None = None,
    keep: str | None = None,
) -> Op:
    """A `step.run`. Gives its id unless told otherwise; `size` gives a text of so many characters instead.

    With `takes_ms` it takes that long and notes its end, too; so it does with `until`, which names a file whose
    coming ends it (see `Play.held`).
    """
    return _op(
        "run",
        id=step_id,
        gives=step_id if gives is None else gives,
        size=size,
        takes_ms=takes_ms,
        until=until,
        fails=fails,
        keep=keep,
    )


def failing(times: int, message: str = "boom", *, kind: str = "error", after_s: int | None = None) -> Op:
    """Fail the first `times` tries: `error`, `retry_after` (in `after_s` seconds) or `non_retriable`."""
    return {"times": times, "message": message, "kind": kind} | ({"after_s": after_s} if after_s else {})


def sleep(step_id: str, ms: int) -> Op:
    """A `step.sleep`, in milliseconds (whole seconds: some SDKs know no others)."""
    return _op("sleep", id=step_id, ms=ms)


def sleep_until(step_id: str, ms: int) -> Op:
    """A `step.sleepUntil` a moment so many milliseconds from now; negative ones are past."""
    return _op("sleep_until", id=step_id, ms=ms)


def wait(
    step_id: str,
    name: str,
    *,
    ms: int = 3_600_000,
    if_: str | None = None,
    match: str | None = None,
    keep: str | None = None,
) -> Op:
    """A `step.waitForEvent`; gives the data of the event, or null when time is up."""
    return _op("wait", id=step_id, event=f"@@/{name}", ms=ms, if_=if_, match=match, keep=keep)


def wait_signal(step_id: str, signal: str | dict[str, str], *, ms: int = 3_600_000, conflict: str = "fail") -> Op:
    """A `step.waitForSignal`; gives what it gave."""
    return _op("wait_signal", id=step_id, signal=signal, ms=ms, conflict=conflict)


def send_signal(step_id: str, signal: str | dict[str, str], value: Any) -> Op:
    """A `step.sendSignal`."""
    return _op("send_signal", id=step_id, signal=signal, value=value)


def invoke(step_id: str, function: str, *, app: str = "@app@", value: Any = None, ms: int | None = None) -> Op:
    """A `step.invoke` of a function of an app."""
    return _op("invoke", id=step_id, function=function, app=app, value=value or {}, ms=ms)


def send(step_id: str, *events: dict[str, Any]) -> Op:
    """A `step.sendEvent`; gives the ids."""
    return _op("send", id=step_id, events=list(events))


def fetch(step_id: str, path: str, body: Any = None) -> Op:
    """A `step.fetch`; gives the status and the decoded body."""
    return _op("fetch", id=step_id, url=f"@web@{path}", body=body)


def infer(step_id: str, provider: str, body: dict[str, Any], *, path: str) -> Op:
    """A `step.ai.infer`, provider `openai` or `anthropic`; gives what the provider gave."""
    return _op("infer", id=step_id, provider=provider, body=body, url=f"@web@{path}")


def wrap(step_id: str, value: Any) -> Op:
    """A `step.ai.wrap` of a function that gives what it is given."""
    return _op("wrap", id=step_id, value=value)


def parallel(keep: str, *branches: Script, mode: str = "wait") -> Op:
    """A group. Each branch gives what its last step gave; `wait` keeps all of them, `race` the first one's.

    `settled` waits for all and keeps a failed member as its error.
    """
    return _op("parallel", keep=keep, branches=[list(branch) for branch in branches], mode=mode)


def attempt(keep: str, *script: Op) -> Op:
    """Do it and keep the name and message of the error that user code caught, or null."""
    return _op("attempt", keep=keep, script=list(script))


def note(what: str, value: Any = None) -> Op:
    """Note something in the ledger from the function's own code, as often as that is executed."""
    return _op("note", what=what, value=value)


def throw(fails: Op) -> Op:
    """Fail in the function's own code."""
    return _op("throw", fails=fails)


def log(message: str) -> Op:
    """Write to the SDK's logger."""
    return _op("log", message=message)


def defer(step_id: str, function: str, value: dict[str, Any]) -> Op:
    """Ask for a deferred function, which starts when the run has ended."""
    return _op("defer", id=step_id, function=function, value=value)


def give(value: Any) -> Op:
    """Return from the function."""
    return _op("give", value=value)


@dataclass(frozen=True)
class Scripted:
    """One function of the matrix as every SDK declares it."""

    id: str
    script: Script
    triggers: list[dict[str, str]]
    options: dict[str, Any] = field(default_factory=dict)
    on_failure: Script | None = None
    needs: frozenset[str] = frozenset()
    """What an SDK must have for this function."""
    kind: str = "function"
    """`function`, `streaming` (served where answers are streamed) or `deferred`."""
    door: dict[str, int] | None = None
    """How the app's web server answers by itself, before the SDK: `{"status": 503, "times": 2}`."""

    @property
    def event(self) -> str:
        """The name of the event that starts it."""
        return self.triggers[0]["event"]

    def to_json(self) -> dict[str, Any]:
        """What the apps read."""
        return {
            "id": self.id,
            "script": list(self.script),
            "triggers": self.triggers,
            "options": self.options,
            "on_failure": None if self.on_failure is None else list(self.on_failure),
            "kind": self.kind,
            "door": self.door,
        }
