"""One run with its timeline, and one step's input, output, error and attempts. Reads only, five statements a page.

Payloads stay in Postgres until somebody opens them; what is opened is cut at `LARGEST`. History is read as the engine
writes it: one row per (run, version, position); see the kinds in `_calls` and `_steps_history`.
"""

import json
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

import msgspec

from app.domain.ids import EnvironmentId, RunId
from app.reads import stacks
from app.reads.around import Around, load_around
from app.reads.runs import RunRow, rows_by_id
from app.reads.timeline import (
    CALL_KINDS,
    FIRST_ROWS,
    CallFacts,
    Facts,
    ItemFacts,
    RunFacts,
    StepFacts,
    StepFilter,
    Timeline,
    build,
)
from app.store.db import Connection

#: Characters of one payload a panel is given; more is for the download.
LARGEST = 256 * 1024
#: Rows read of one run: 10,000 steps with two entries each, and a bound for what nobody should see.
_MOST_STEPS = 10_000
_MOST_HISTORY = 40_000
#: Raw calls shown of one step, and characters of each.
_MOST_RAW = 5
_RAW = 16_384
#: Runs with this many steps are kept in memory once they have ended, and how many of them.
_LARGE_RUN = 500
_MOST_KEPT = 4
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class RunPage:
    """A run as its page shows it; `facts` is what steps' details are computed from without asking again."""

    row: RunRow
    timeline: Timeline
    facts: Facts
    around: Around

    def failing_step(self) -> str | None:
        """The key of the step that failed last: what a failed run's page opens."""
        failed = [s for s in self.facts.steps if s.state == "failed"]
        return max(failed, key=lambda s: s.settled_at or s.created_at).key if failed else None


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


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call; `number` counts from 1, `backoff_ms` is the pause that followed it.

    `state`: completed, failed or ignored.
    """

    number: int
    state: str
    problem: Problem | None
    started_at: datetime
    ms: float
    backoff_ms: float | None
    status: int | None


@dataclass(frozen=True, slots=True)
class RawCall:
    """What history keeps of one call and its answer, as indented JSON; `number` counts the step's calls from 1."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Detail:
    """What the panel beside the timeline shows of a step, or of the run itself when `key` is `run`.

    `place` is the step's number in start order, from 1; None for the run.
    """

    key: str
    name: str
    kind: str
    state: str
    place: int | None
    started_at: datetime | None
    ended_at: datetime | None
    problem: Problem | None
    input: Payload | None
    output: Payload | None
    options: Payload | None
    attempts: tuple[Attempt, ...]
    facts: tuple[tuple[str, str], ...]
    raw_calls: tuple[RawCall, ...] = ()


async def load_run(
    connection: Connection,
    environment_id: EnvironmentId,
    run_id: RunId,
    *,
    is_folded: bool = True,
    limit: int = FIRST_ROWS,
    wanted: StepFilter | None = None,
) -> RunPage | None:
    """The run and its timeline; None when this environment has no such run. At most four statements."""
    rows = await rows_by_id(connection, environment_id, [run_id])
    if not rows:
        return None
    row = rows[0]
    around = await load_around(connection, environment_id, run_id)
    facts = _KEPT.get(row) or await _load_facts(connection, environment_id, row, around)
    _KEPT.put(row, facts)
    return RunPage(row, build(facts, is_folded=is_folded, limit=limit, wanted=wanted), facts, around)


class _Kept:
    """Facts of the large runs looked at last, by id and version: ended runs do not change, and windows ask often."""

    def __init__(self) -> None:
        self._facts: OrderedDict[tuple[RunId, int], Facts] = OrderedDict()

    def get(self, row: RunRow) -> Facts | None:
        """The facts of exactly this version."""
        return self._facts.get((row.id, row.version))

    def put(self, row: RunRow, facts: Facts) -> None:
        """Keep them if it was work to read them; four runs at most."""
        if not row.is_ended or len(facts.steps) < _LARGE_RUN:
            return
        self._facts[row.id, row.version] = facts
        self._facts.move_to_end((row.id, row.version))
        if len(self._facts) > _MOST_KEPT:
            self._facts.popitem(last=False)


_KEPT = _Kept()


async def _load_facts(connection: Connection, environment_id: EnvironmentId, row: RunRow, around: Around) -> Facts:
    run_id = row.id
    steps = await connection.fetch(
        """select step_key, kind, name, state, created_at, settled_at,
                  case when octet_length(opts) <= 4000 then opts end as opts,
                  case when kind in ('wait_for_event', 'wait_for_signal') then left(memo, 20) end as memo_head
           from steps where run_id = $1 and environment_id = $2 order by created_at, step_key limit $3""",
        run_id,
        environment_id,
        _MOST_STEPS,
    )
    history = await connection.fetch(
        """select version, kind, step_key, item_key, attempt, started_at, at,
                  case when kind = 'call' and octet_length(detail) <= 200000 then detail end as detail
           from history where run_id = $1 and environment_id = $2 order by version, position limit $3""",
        run_id,
        environment_id,
        _MOST_HISTORY,
    )
    return _facts(row, steps, history, around.items)


async def run_version(connection: Connection, environment_id: EnvironmentId, run_id: RunId) -> tuple[int, bool] | None:
    """(version, has it ended): all a stream needs to know; None when there is no such run."""
    record = await connection.fetchrow(
        "select version, ended_at is not null as is_ended from runs where id = $1 and environment_id = $2",
        run_id,
        environment_id,
    )
    return None if record is None else (record["version"], record["is_ended"])


async def load_detail(
    connection: Connection, environment_id: EnvironmentId, page: RunPage, key: str | None, *, has_calls: bool = False
) -> Detail | None:
    """The panel of one step, or of the run for None or `run`; None when the run has no such step. Two statements.

    `has_calls` brings the raw calls of a step, the newest `_MOST_RAW`.
    """
    if key is None or key == "run":
        return await _run_detail(connection, environment_id, page)
    ordered = sorted(page.facts.steps, key=lambda s: s.created_at)
    place = next((i for i, s in enumerate(ordered, 1) if s.key == key), None)
    if place is None:
        return None
    step = ordered[place - 1]
    record = await connection.fetchrow(
        """select step_type, left(memo, $4) as memo, octet_length(memo) as memo_octets,
                  left(input, $4) as input, octet_length(input) as input_octets,
                  left(opts, $4) as opts, octet_length(opts) as opts_octets,
                  left(error, $4) as error
           from steps where run_id = $1 and environment_id = $2 and step_key = $3""",
        page.row.id,
        environment_id,
        key,
        LARGEST,
    )
    attempts = _attempts(page.facts, key)
    output, memo_problem = _memo(record["memo"], record["memo_octets"])
    problem = None
    if step.state == "failed" or (step.state in {"retrying", "planned"} and record["error"]):
        last = next((a.problem for a in reversed(attempts) if a.problem is not None), None)
        problem = last if last is not None and last.stack else (memo_problem or _problem(record["error"]) or last)
    drawn = next((r for r in page.timeline.flat() if r.key == key), None)
    return Detail(
        key=key,
        name=step.name or key,
        kind=step.kind,
        state=drawn.state if drawn is not None else step.state,
        place=place,
        started_at=attempts[0].started_at if attempts else step.created_at,
        ended_at=step.settled_at,
        problem=problem,
        input=_payload(record["input"], record["input_octets"]),
        output=None if memo_problem is not None else output,
        options=_payload(record["opts"], record["opts_octets"]),
        attempts=attempts,
        facts=_step_facts(page, step, record["step_type"]),
        raw_calls=await _raw_calls(connection, environment_id, page.row.id, key) if has_calls else (),
    )


async def _raw_calls(
    connection: Connection, environment_id: EnvironmentId, run_id: RunId, key: str
) -> tuple[RawCall, ...]:
    records = await connection.fetch(
        """select row_number() over (order by version, position)::int as number, left(detail, $4) as detail
           from history where run_id = $1 and environment_id = $2 and step_key = $3 and kind = 'call'
           order by version desc, position desc limit $5""",
        run_id,
        environment_id,
        key,
        _RAW,
        _MOST_RAW,
    )
    return tuple(RawCall(r["number"], _indented(r["detail"] or "")) for r in records)


def _indented(text: str) -> str:
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return text


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
    if part == "output" and text is not None and set(_object(text)) == {"data"}:
        return _member(text, "data")
    return text


def _ended_with(text: str | None) -> str | None:
    return _member(text, "output") if text is not None and "output" in _object(text) else text


async def _run_detail(connection: Connection, environment_id: EnvironmentId, page: RunPage) -> Detail:
    row = page.row
    event = await connection.fetchrow(
        """select left(payload, $4) as payload, octet_length(payload) as octets from events
           where environment_id = $1 and id = $2 and received_at = $3""",
        environment_id,
        row.event_id,
        row.event_received_at,
        LARGEST,
    )
    end = await connection.fetchrow(
        """select left(detail, $3) as detail, octet_length(detail) as octets from history
           where run_id = $1 and environment_id = $2 and kind in ('run.completed', 'run.failed', 'run.cancelled')
           order by version desc, position desc limit 1""",
        row.id,
        environment_id,
        LARGEST,
    )
    output, problem = (None, None) if end is None else _ending(end["detail"], end["octets"])
    if row.error_name is not None or row.error_code is not None:
        stack = problem.stack if problem is not None else ()
        problem = Problem(row.error_name or row.error_code or "Error", row.error_message or "", stack)
    facts = [("Run ID", row.ulid), ("Function", row.function_slug), ("Function version", str(row.function_version))]
    facts += [("Error code", row.error_code)] if row.error_code else []
    facts += [("Attempts allowed", str(row.max_attempts)), ("Changes so far", str(row.version))]
    return Detail(
        key="run",
        name=row.function_name,
        kind="root",
        state=row.state,
        place=None,
        started_at=row.queued_at,
        ended_at=row.ended_at,
        problem=problem if row.state == "failed" or row.error_code else None,
        input=None if event is None else _payload(event["payload"], event["octets"]),
        output=output,
        options=None,
        attempts=_attempts(page.facts, None),
        facts=tuple(facts),
    )


# ------------------------------------------------------------------ records to facts


def _facts(row: RunRow, steps: Sequence[Any], history: Sequence[Any], items: Sequence[ItemFacts]) -> Facts:
    versions: dict[str, int] = {}
    opened: dict[int, list[str]] = defaultdict(list)
    for h in history:
        if h["step_key"] is None:
            continue
        versions[h["step_key"]] = h["version"]
        if h["kind"] == "step.opened":
            opened[h["version"]].append(h["step_key"])
    found = [_step(s) for s in steps]
    calls = [_call(h) for h in history if h["kind"] == "call"]
    calls += _saved_while_calling(found, history, calls, items)
    status = row.state if row.is_ended else "queued" if row.state == "queued" else "running"
    return Facts(
        run=RunFacts(
            status, row.function_name, row.version, row.queued_at, row.started_at, row.ended_at, row.original_run
        ),
        steps=found,
        calls=calls,
        items=items,
        now=row.now,
        versions=versions,
        groups={key: version for version, keys in opened.items() if len(keys) > 1 for key in keys},
    )


def _saved_while_calling(
    steps: Sequence[StepFacts], history: Sequence[Any], calls: Sequence[CallFacts], items: Sequence[ItemFacts]
) -> list[CallFacts]:
    """Steps that an app saved (checkpoints) while a call of no particular step ran, as calls of their own.

    Nobody reports when such a step began: it is taken to begin when the call did, or when the step saved before it
    ended. Its attempt follows those that failed in calls of their own.
    """
    inline = {s.key for s in steps if s.kind in CALL_KINDS}
    reported = {(h["version"], h["step_key"]) for h in history if h["kind"] == "call"}
    last_attempt = {c.step_key: c.attempt for c in sorted(calls, key=lambda c: c.attempt)}
    around: list[tuple[datetime, datetime | None, float]] = [
        (h["started_at"], h["at"], _number(_loads(h["detail"]).get("queued_ms")) or 0.0)
        for h in history
        if h["kind"] == "call" and h["step_key"] is None and h["started_at"] is not None
    ]
    around += [(i.leased_at, None, 0.0) for i in items if i.leased_at is not None]
    out: list[CallFacts] = []
    before: datetime | None = None
    for h in history:
        key: str | None = h["step_key"]
        ended: datetime = h["at"]
        if h["kind"] not in {"step.completed", "step.failed"} or key not in inline or (h["version"], key) in reported:
            continue
        within = max((c for c in around if c[0] <= ended and (c[1] is None or ended <= c[1])), key=_begin, default=None)
        if within is None and h["started_at"] is None:
            continue
        began: datetime = h["started_at"] or (within[0] if within is not None else ended)
        is_first = before is None or before <= began
        queued_ms = within[2] if within is not None and is_first and key in last_attempt else 0.0
        out.append(
            CallFacts(
                key,
                None,
                last_attempt.get(key, -1) + 1,
                began if is_first or before is None else before,
                ended,
                "ok" if h["kind"] == "step.completed" else "error",
                queued_ms,
            )
        )
        before = ended
    return out


def _begin(call: tuple[datetime, datetime | None, float]) -> datetime:
    return call[0]


def _step(record: Any) -> StepFacts:
    opts = _loads(record["opts"])
    target = opts.get("function_id")
    event = opts.get("event") or opts.get("signal")
    head = (record["memo_head"] or "").replace(" ", "")
    return StepFacts(
        key=record["step_key"],
        kind=record["kind"],
        name=record["name"],
        state=record["state"],
        created_at=record["created_at"],
        settled_at=record["settled_at"],
        event_name=event if isinstance(event, str) else None,
        target=target if isinstance(target, str) else None,
        is_empty=head in {"null", '{"data":null}'},
    )


def _call(record: Any) -> CallFacts:
    detail = _loads(record["detail"])
    error = detail.get("error")
    error = error if isinstance(error, dict) else {}
    started = record["started_at"] or record["at"]
    ms = _number(detail.get("ms"))
    status, sdk = detail.get("status"), detail.get("sdk")
    return CallFacts(
        step_key=record["step_key"],
        item_key=record["item_key"],
        attempt=record["attempt"] or 0,
        started_at=started,
        ended_at=record["at"] if ms is None else started + timedelta(milliseconds=ms),
        outcome=str(detail.get("outcome", "ok")),
        queued_ms=_number(detail.get("queued_ms")) or 0.0,
        retry_after_ms=_number(detail.get("retry_after_ms")),
        status=status if isinstance(status, int) else None,
        sdk=sdk if isinstance(sdk, str) else None,
        error_name=_text(error.get("name")),
        error_message=_text(error.get("message")),
        error_stack=_text(error.get("stack")),
    )


def _attempts(facts: Facts, key: str | None) -> tuple[Attempt, ...]:
    """All calls of a step, oldest first; for the run those that failed outside a step."""
    known = {s.key for s in facts.steps}
    calls = [
        c
        for c in sorted(facts.calls, key=lambda c: c.started_at)
        if (c.step_key == key if key is not None else c.step_key not in known and c.outcome == "error")
    ]
    out = []
    for call, following in zip_longest(calls, calls[1:]):
        problem = None
        if call.outcome == "error":
            name = call.error_name or (f"HTTP {call.status}" if call.status else "Error")
            problem = Problem(name, call.error_message or "", stacks.lines(call.error_stack))
        backoff = None
        if call.outcome == "error" and following is not None:
            gap = (following.started_at - call.ended_at) / timedelta(milliseconds=1) - following.queued_ms
            backoff = max(0.0, gap)
        state = {"ok": "completed", "error": "failed"}.get(call.outcome, "ignored")
        ms = (call.ended_at - call.started_at) / timedelta(milliseconds=1)
        out.append(Attempt(call.attempt + 1, state, problem, call.started_at, ms, backoff, call.status))
    return tuple(out)


def _step_facts(page: RunPage, step: StepFacts, step_type: str | None) -> tuple[tuple[str, str], ...]:
    last = next((c for c in reversed(page.facts.calls) if c.step_key == step.key), None)
    pairs = [("Step ID", step.key), ("Kind", (step_type or step.kind).replace("_", " "))]
    pairs += [("Event", step.event_name)] if step.event_name else []
    pairs += [("Function", step.target)] if step.target else []
    pairs += [("Last answer", f"HTTP {last.status}")] if last is not None and last.status else []
    pairs += [("SDK", last.sdk)] if last is not None and last.sdk else []
    return tuple(pairs)


def _payload(text: str | None, octets: int | None) -> Payload | None:
    if text is None or octets is None:
        return None
    return Payload(text, octets, octets > len(text.encode()))


def _memo(text: str | None, octets: int | None) -> tuple[Payload | None, Problem | None]:
    """A step's outcome: `{"data": …}` and `{"error": …}` as SDKs report them, or the bare value of sleeps and waits."""
    if text is None or octets is None:
        return None, None
    whole = _payload(text, octets)
    if whole is None or whole.is_cut:
        return whole, None
    value = _object(text)
    if set(value) == {"error"}:
        return None, _problem(json.dumps(value["error"]))
    if set(value) == {"data"}:
        inner = _member(text, "data")
        return Payload(inner, len(inner.encode()), False), None
    return whole, None


def _ending(text: str | None, octets: int | None) -> tuple[Payload | None, Problem | None]:
    """What ended a run: `{"output": …}` or `{"error": …, "code": …}`."""
    whole = _payload(text, octets)
    if whole is None or whole.is_cut:
        return whole, None
    value = _object(whole.text)
    if "error" in value:
        return None, _problem(json.dumps(value["error"]))
    if "output" in value:
        inner = _member(whole.text, "output")
        return Payload(inner, len(inner.encode()), False), None
    return None, None


def _member(text: str, key: str) -> str:
    """One member of a JSON object as its stored text, so that no digit changes on the way."""
    try:
        return bytes(_DECODER.decode(text)[key]).decode()
    except msgspec.DecodeError:  # half of a surrogate pair, which only the lenient reader takes
        return json.dumps(json.loads(text)[key])


def _problem(text: str | None) -> Problem | None:
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
        _text(inner.get("name")) or "Error", _text(inner.get("message")) or "", stacks.lines(_text(inner.get("stack")))
    )


def _loads(text: str | None) -> dict[str, Any]:
    """JSON that the engine wrote: no exotic numbers, and ten thousand of them a page."""
    if not text:
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _object(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
