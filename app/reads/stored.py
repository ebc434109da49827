"""Stored texts as panels show them: payloads cut to what a page carries, outcomes and errors taken out of their wrapping."""

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.ids import EnvironmentId, RunId
from app.reads import stacks
from app.store.db import Connection

#: Characters of one payload a panel is given; more is for the download.
LARGEST = 256 * 1024

_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Payload:
    """A stored text; `octets` is its full size, `is_cut` when `text` is only the first part."""

    text: str
    octets: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """An error: name, message, and the stack as marked lines."""

    name: str
    message: str
    stack: tuple[stacks.Line, ...] = ()


async def load_payload(
    connection: Connection, environment_id: EnvironmentId, run_id: RunId, key: str, part: str
) -> str | None:
    """A whole stored text: `input`, `output` or `options` of a step, `input` (the event) or `output` of the run."""
    text: str | None
    if key == "run":
        text = await connection.fetchval(
            """select case when $3 = 'input' then (select e.payload from events e where e.environment_id = r.environment_id
                   and e.id = r.event_id and e.received_at = r.event_received_at)
                 when $3 = 'output' then (select h.detail from history h where h.run_id = r.id
                   and h.environment_id = r.environment_id and h.kind in ('run.completed', 'run.failed', 'run.cancelled')
                   order by h.version desc, h.position desc limit 1) end
               from runs r where r.id = $1 and r.environment_id = $2""",
            run_id,
            environment_id,
            part,
        )
        return _ended_with(text) if part == "output" else text
    text = await connection.fetchval(
        """select case $4 when 'input' then input when 'output' then memo when 'options' then opts end
           from steps where run_id = $1 and environment_id = $2 and step_key = $3""",
        run_id,
        environment_id,
        key,
        part,
    )
    return unwrapped(text) if part == "output" and text is not None else text


def unwrapped(memo: str) -> str:
    """What a step returned, without the `{"data": …}` in which SDKs report it."""
    return member_of(memo, "data") if set(object_of(memo)) == {"data"} else memo


def _ended_with(text: str | None) -> str | None:
    return member_of(text, "output") if text is not None and "output" in object_of(text) else text


def payload_of(text: str | None, octets: int | None) -> Payload | None:
    """A text read with `left(…, LARGEST)` and its full size in bytes."""
    if text is None or octets is None:
        return None
    return Payload(text, octets, octets > len(text.encode()))


def outcome_of(text: str | None, octets: int | None) -> tuple[Payload | None, Problem | None]:
    """A step's outcome: `{"data": …}` and `{"error": …}` as SDKs report them, or the bare value of sleeps and waits."""
    if text is None or octets is None:
        return None, None
    whole = payload_of(text, octets)
    if whole is None or whole.is_cut:
        return whole, None
    value = object_of(text)
    if set(value) == {"error"}:
        return None, problem_of(json.dumps(value["error"]))
    if set(value) == {"data"}:
        inner = member_of(text, "data")
        return Payload(inner, len(inner.encode()), False), None
    return whole, None


def ending_of(text: str | None, octets: int | None) -> tuple[Payload | None, Problem | None]:
    """What ended a run: `{"output": …}` or `{"error": …, "code": …}`."""
    whole = payload_of(text, octets)
    if whole is None or whole.is_cut:
        return whole, None
    value = object_of(whole.text)
    if "error" in value:
        return None, problem_of(json.dumps(value["error"]))
    if "output" in value:
        inner = member_of(whole.text, "output")
        return Payload(inner, len(inner.encode()), False), None
    return None, None


def member_of(text: str, key: str) -> str:
    """One member of a JSON object as its stored text, so that no digit changes on the way."""
    try:
        return bytes(_DECODER.decode(text)[key]).decode()
    except msgspec.DecodeError:  # half of a surrogate pair, which only the lenient reader takes
        return json.dumps(json.loads(text)[key])


def problem_of(text: str | None) -> Problem | None:
    """An error as SDKs store it: an object with name, message and stack, a bare text, or text that is no JSON."""
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return Problem("Error", text[:2000])
    if isinstance(value, str):
        return Problem("Error", value)
    if not isinstance(value, dict):
        return None
    # Some SDKs nest the error once more.
    inner = value.get("error") if isinstance(value.get("error"), dict) and "message" not in value else value
    inner = inner if isinstance(inner, dict) else value
    return Problem(
        text_of(inner.get("name")) or "Error",
        text_of(inner.get("message")) or "",
        stacks.lines(text_of(inner.get("stack"))),
    )


def indented(text: str) -> str:
    """JSON spread over lines, every digit as it was; other text as it is."""
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return text


def read_object(text: str | None) -> dict[str, Any]:
    """JSON that the engine wrote: no exotic numbers, and ten thousand of them a page."""
    if not text:
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def object_of(text: str | None) -> dict[str, Any]:
    """A JSON object of a tenant; {} for anything else."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def number_of(value: Any) -> float | None:
    """The value if it is a number."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def text_of(value: Any) -> str | None:
    """The value if it is a text."""
    return value if isinstance(value, str) else None
