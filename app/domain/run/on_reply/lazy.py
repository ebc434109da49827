"""`None`, `DeferAdd`, `DeferAbort`: nothing the run waits for (protocol 12.2; ts4 defers).

A defer is a function to be started when this run has ended. Saying it twice changes nothing; one that breaks a limit is
kept as rejected, so that people see why nothing was started: it never fails the run.
"""

from typing import Any

from app.domain import canonical, limits
from app.domain.protocol.opcodes import Op
from app.domain.run.effects import AbortDefer, AddDefer
from app.domain.run.state import Defer
from app.domain.run.turn import Turn


def lazy(_turn: Turn, _op: Op) -> None:
    """No effect. An answer of nothing else settles its item if the run has another; else it is tried again."""


def defer_add(turn: Turn, op: Op) -> None:
    """Remember the function to be started, while the run has room for it."""
    opts = _opts(op)
    function = opts.get("fn_slug")
    if not op.id or op.id in turn.sheet.defers or not isinstance(function, str) or not function:
        return
    given = opts.get("input")
    is_object = given is None or isinstance(given, dict)
    text = canonical.encode(given if isinstance(given, dict) else {})
    known = turn.sheet.defers.values()
    has_room = (
        len(known) < limits.MAX_DEFERS_PER_RUN and sum(one.size for one in known) + len(text) <= limits.MAX_DEFER_BYTES
    )
    is_pending = is_object and has_room
    meta = opts.get("meta")
    turn.add(
        AddDefer(
            op.id,
            function.replace("\x00", "\ufffd"),
            text if is_pending else b"{}",
            canonical.encode(meta) if isinstance(meta, dict) else None,
            Defer(is_pending, len(text) if is_pending else 0),
        )
    )


def defer_abort(turn: Turn, op: Op) -> None:
    """Forget a function that was to be started."""
    target = _opts(op).get("target_hashed_id")
    known = turn.sheet.defers.get(target) if isinstance(target, str) else None
    if known is not None and known.is_pending:
        turn.add(AbortDefer(str(target)))


def _opts(op: Op) -> dict[str, Any]:
    opts = canonical.decode(op.raw_opts) if op.raw_opts is not None else None
    return opts if isinstance(opts, dict) else {}
