"""What somebody may take out of a run: a step's input or its event's data to be changed, and what a test begins with."""

import json
from dataclasses import dataclass

import msgspec

from app.domain.ids import EnvironmentId, RunId
from app.reads.runs import RunRow, rows_by_id
from app.reads.stored import unwrapped
from app.store.db import Connection

#: Characters a form holds; what is larger is changed over the API.
LARGEST = 256 * 1024
#: Octets of an event, and of memos, that a test to be copied holds.
_LARGEST_TEST = 65_536
#: Kinds of steps whose input the app takes from us; the engine refuses the others.
TAKES_INPUT = frozenset({"run", "ai", "gateway"})


@dataclass(frozen=True, slots=True)
class Editable:
    """`text` is the JSON to begin with: a step's list of arguments, or the data of the event when `key` is `run`.

    `why_not` is the sentence that stands where nothing can be changed.
    """

    run: RunRow
    key: str
    name: str
    text: str
    why_not: str | None

    @property
    def is_event(self) -> bool:
        """Whether the event is what is changed."""
        return self.key == "run"


async def load_editable(
    connection: Connection, environment_id: EnvironmentId, run_id: RunId, key: str
) -> Editable | None:
    """None when there is no such run or step. Two statements."""
    rows = await rows_by_id(connection, environment_id, [run_id])
    if not rows:
        return None
    run = rows[0]
    if key == "run":
        payload = await connection.fetchval(
            f"""select left(payload, {LARGEST + 1}) from events
                where environment_id = $1 and id = $2 and received_at = $3""",
            environment_id,
            run.event_id,
            run.event_received_at,
        )
        return Editable(run, key, run.event_name, _data(payload), _why_not(run, payload))
    record = await connection.fetchrow(
        f"""select kind, name, left(input, {LARGEST + 1}) as input from steps
            where run_id = $1 and environment_id = $2 and step_key = $3""",
        run_id,
        environment_id,
        key,
    )
    if record is None:
        return None
    why_not = _why_not(run, record["input"] or "[]")
    if record["kind"] not in TAKES_INPUT:
        why_not = "This kind of step takes no input."
    elif not run.is_ended:
        why_not = "The run has not ended: cancel it first."
    return Editable(run, key, record["name"] or key, record["input"] or "[]", why_not)


def _why_not(run: RunRow, text: str | None) -> str | None:
    if not run.is_callable:
        return "The function is paused or not there any more."
    if text is None:
        return "The event is not kept any more."
    if run.batch_size > 1:
        return "The run has a batch of events: they cannot be changed."
    return "It is too large to be changed here: use the API." if len(text) > LARGEST else None


def _data(payload: str | None) -> str:
    """The sender's data of a stored event, without what Stepwell put into it."""
    try:
        data = bytes(msgspec.json.decode(payload or "", type=dict[str, msgspec.Raw])["data"]).decode()
        parts = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError):
        return "{}"
    parts.pop("_inngest", None)
    return "{" + ",".join(f"{json.dumps(name)}:{bytes(value).decode()}" for name, value in parts.items()) + "}"


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a test of a step, or of the whole run, is given: the event, and (name, memo) of the steps before, all JSON."""

    event: str
    steps: tuple[tuple[str, str], ...]


async def load_beginning(
    connection: Connection, environment_id: EnvironmentId, run_id: RunId, key: str
) -> Beginning | None:
    """None when the event is gone, or all of it is too large to be copied. One statement."""
    record = await connection.fetchrow(
        f"""with mine as (select memo_order from steps where run_id = $1 and environment_id = $2 and step_key = $3)
            select e.payload, octet_length(e.payload) as octets,
              (select json_agg(json_build_array(s.name, s.memo) order by s.memo_order) from
                (select coalesce(nullif(x.name, ''), x.step_key) as name, x.memo, x.memo_order,
                   sum(octet_length(x.memo)) over (order by x.memo_order) as total from steps x
                 where x.run_id = $1 and x.environment_id = $2 and x.state = 'completed'
                   and x.memo_order < coalesce((select memo_order from mine), 2147483647)) s
               where s.total <= {_LARGEST_TEST})::text as steps
            from runs r join events e on e.environment_id = r.environment_id and e.id = r.event_id
              and e.received_at = r.event_received_at
            where r.id = $1 and r.environment_id = $2""",
        run_id,
        environment_id,
        key,
    )
    if record is None or record["octets"] > _LARGEST_TEST:
        return None
    steps = tuple((name, unwrapped(memo)) for name, memo in json.loads(record["steps"] or "[]"))
    return Beginning(record["payload"], steps)
