"""The panel beside the timeline: one step's input, output, error and attempts, or those of the run itself.

Payloads stay in Postgres until somebody opens them; what is opened is cut at `stored.LARGEST`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest

from app.domain.ids import EnvironmentId
from app.reads import stacks
from app.reads.run_page import RunPage
from app.reads.stored import LARGEST, Payload, Problem, ending_of, object_of, outcome_of, payload_of, problem_of
from app.reads.timeline.facts import Facts, ModelFacts, StepFacts
from app.store.db import Connection

#: Options of waits and sleeps that people ask for, and their words.
_OPTIONS = (("if", "Expression"), ("timeout", "Timeout"), ("until", "Until"), ("signal", "Signal"))


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
    request_id: str | None = None


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
    #: Its result was copied from the run that this one replays.
    is_reused: bool = False


async def load_detail(
    connection: Connection, environment_id: EnvironmentId, page: RunPage, key: str | None
) -> Detail | None:
    """The panel of one step, or of the run for None or `run`; None when the run has no such step. Two statements."""
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
    attempts = attempts_of(page.facts, key)
    output, memo_problem = outcome_of(record["memo"], record["memo_octets"])
    problem = None
    if step.state == "failed" or (step.state in {"retrying", "planned"} and record["error"]):
        last = next((a.problem for a in reversed(attempts) if a.problem is not None), None)
        problem = last if last is not None and last.stack else (memo_problem or problem_of(record["error"]) or last)
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
        input=payload_of(record["input"], record["input_octets"]),
        output=None if memo_problem is not None else output,
        options=payload_of(record["opts"], record["opts_octets"]),
        attempts=attempts,
        facts=_facts_of_step(page, step, record["step_type"], record["opts"]),
        is_reused=page.row.original_run is not None
        and step.settled_at is not None
        and step.settled_at < page.row.queued_at,
    )


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
    output, problem = (None, None) if end is None else ending_of(end["detail"], end["octets"])
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
        input=None if event is None else payload_of(event["payload"], event["octets"]),
        output=output,
        options=None,
        attempts=attempts_of(page.facts, None),
        facts=tuple(facts),
    )


def attempts_of(facts: Facts, key: str | None) -> tuple[Attempt, ...]:
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
        out.append(
            Attempt(call.attempt + 1, state, problem, call.started_at, ms, backoff, call.status, call.request_id)
        )
    return tuple(out)


def _facts_of_step(
    page: RunPage, step: StepFacts, step_type: str | None, opts: str | None
) -> tuple[tuple[str, str], ...]:
    last = next((c for c in reversed(page.facts.calls) if c.step_key == step.key), None)
    pairs = [("Step ID", step.key), ("Kind", (step_type or step.kind).replace("_", " "))]
    pairs += [("Event", step.event_name)] if step.event_name else []
    pairs += [("Function", step.target)] if step.target else []
    told = object_of(opts)
    pairs += [(words, told[name]) for name, words in _OPTIONS if isinstance(told.get(name), str) and told[name]]
    if last is not None and last.model is not None:
        pairs += _facts_of_model(last.model)
    if last is not None and last.queued_ms >= 1:
        pairs += [("Queue wait", f"{last.queued_ms:,.0f} ms before the last call")]
    pairs += [("Last answer", f"HTTP {last.status}")] if last is not None and last.status else []
    pairs += [("SDK", last.sdk)] if last is not None and last.sdk else []
    return tuple(pairs)


def _facts_of_model(model: ModelFacts) -> list[tuple[str, str]]:
    counts = ((model.tokens_read, "in"), (model.tokens_written, "out"))
    tokens = ", ".join(f"{count:,} {way}" for count, way in counts if count is not None)
    pairs = (("Provider", model.provider), ("Model", model.model), ("Tokens", tokens))
    return [(words, value) for words, value in pairs if value]
