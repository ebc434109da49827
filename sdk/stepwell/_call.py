"""What the server asks for: one call request, decoded (protocol 10)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stepwell import _json
from stepwell._event import EventMessage, received

#: Value of the query's `stepId` on calls that ask what comes next.
DISCOVERY = "step"


class MalformedCallError(ValueError):
    """The body is no call request; the message says which part is missing."""


@dataclass(frozen=True)
class Call:
    """One request to move a run forward."""

    run_id: str
    event: EventMessage
    events: list[EventMessage]
    steps: dict[str, Any]
    """Memoised results by hashed step id, in the shapes of protocol 10.3."""
    stack: list[str]
    """Hashed ids of finished steps in the order they finished; may be empty when the server keeps no order."""
    target: str | None
    """The hashed id of the one step to execute, or None for a discovery call."""
    attempt: int
    max_attempts: int | None
    plan_only: bool
    """Report new steps instead of executing one: the run is inside a parallel group."""
    use_api: bool
    """The state was too large to send: fetch it from the API."""
    fn_id: str | None
    qi_id: str | None
    request_id: str | None = None
    generation_id: int | None = None

    @property
    def may_checkpoint(self) -> bool:
        """Whether step results may be saved during this call (protocol 17.1)."""
        return self.target is None and not self.plan_only and bool(self.fn_id) and bool(self.qi_id)

    def with_state(self, events: list[Any], steps: dict[str, Any]) -> "Call":
        """The same call with the state fetched from the API; its order stands in for a missing stack."""
        return replace(
            self,
            events=[received(event) for event in events],
            steps=steps,
            stack=[step for step in self.stack if step in steps] or list(steps),
            use_api=False,
        )


def read_call(body: bytes, step_id: str, headers: Mapping[str, str]) -> Call:
    """Decode a call request; MalformedCallError says what is missing. Unknown keys are ignored."""
    try:
        request = _json.decode(body)
    except ValueError as error:
        raise MalformedCallError(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict) or not isinstance(ctx := request.get("ctx"), dict):
        raise MalformedCallError("the body has no object 'ctx'")
    run_id = ctx.get("run_id")
    if not isinstance(run_id, str) or not run_id:
        raise MalformedCallError("'ctx.run_id' is missing")
    steps = request.get("steps") or {}
    if not isinstance(steps, dict):
        raise MalformedCallError("'steps' is not an object")
    stack = (ctx.get("stack") or {}).get("stack") or []
    events = request.get("events") or []
    first = received(request.get("event") or (events[0] if events else None))
    generation = headers.get("x-inngest-generation-id") or ctx.get("generation_id")
    return Call(
        run_id=run_id,
        event=first,
        events=[received(event) for event in events] or [first],
        steps=steps,
        stack=[step for step in stack if step in steps],
        target=None if step_id == DISCOVERY else step_id,
        attempt=_whole(ctx.get("attempt")) or 0,
        max_attempts=_whole(ctx.get("max_attempts")),
        plan_only=bool(ctx.get("disable_immediate_execution")),
        use_api=bool(request.get("use_api") or ctx.get("use_api")),
        fn_id=ctx.get("fn_id"),
        qi_id=ctx.get("qi_id"),
        request_id=headers.get("x-request-id") or ctx.get("request_id"),
        generation_id=_whole(generation),
    )


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
