"""Steps that an SDK saves while its call goes on (protocol 17.2).

Comes from `web/api/checkpoint.py`, goes on to `engine/transition.py` as `Checkpointed`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from app.domain import canonical
from app.domain.errors import CheckpointRefused, JsonRefused, OpsRefused
from app.domain.ids import RunId, parse_ulid
from app.domain.protocol.opcodes import CHECKPOINTABLE, Op, read_ops

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says. `qi_id` is the item's reference as it was sent with the call; go sends an empty one when it
    had none. `generation_id` is the fence, None where the SDK does not say (go): then it is not compared.
    """

    run_id: RunId
    fn_id: UUID | None
    qi_id: str
    generation_id: int | None
    ops: tuple[Op, ...]


def read_checkpoint(body: bytes) -> Checkpoint:
    """Read a checkpoint request. Raises `CheckpointRefused`: `checkpoint_invalid`, `output_too_large` or `too_many_steps`."""
    try:
        value = canonical.decode(body)
        if not isinstance(value, dict):
            raise CheckpointRefused("checkpoint_invalid", "The checkpoint is not an object.")
        # None of the ops allowed here names a time.
        ops = read_ops(value.get("steps") or [], _NO_TIME)
    except JsonRefused as refused:
        raise CheckpointRefused("checkpoint_invalid", refused.message, refused.details) from None
    except OpsRefused as refused:
        code = refused.code if refused.code in ("output_too_large", "too_many_steps") else "checkpoint_invalid"
        raise CheckpointRefused(code, refused.message) from None
    for op in ops:
        if op.code not in CHECKPOINTABLE:
            raise CheckpointRefused(
                "checkpoint_invalid", f"An op {op.code} cannot be checkpointed.", {"op": str(op.code)}
            )
    run_text = value.get("run_id")
    run_id = parse_ulid(run_text) if isinstance(run_text, str) else None
    if run_id is None:
        raise CheckpointRefused("checkpoint_invalid", "The checkpoint has no run_id.")
    generation = value.get("generation_id")
    qi_id = value.get("qi_id")
    return Checkpoint(
        run_id=RunId(run_id),
        fn_id=_uuid(value.get("fn_id")),
        qi_id=qi_id if isinstance(qi_id, str) else "",
        generation_id=generation if type(generation) is int else None,
        ops=ops,
    )


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
