"""One run with its timeline and what stands around it. Reads only, at most four statements."""

from collections import OrderedDict
from dataclasses import dataclass

from app.domain.ids import EnvironmentId, RunId
from app.reads.around import Around, load_around
from app.reads.run_records import facts_of
from app.reads.runs import RunRow, rows_by_id
from app.reads.scale import Scale, Span
from app.reads.timeline.build import FIRST_ROWS, build, inside
from app.reads.timeline.facts import Facts, ms_since
from app.reads.timeline.rows import Row, StepFilter, Timeline
from app.store.db import Connection

#: Rows read of one run: 10,000 steps with two entries each, and a bound for what nobody should see.
_MOST_STEPS = 10_000

_MOST_HISTORY = 40_000

#: Runs with this many steps are kept in memory once they have ended, and how many of them.
_LARGE_RUN = 500

_MOST_KEPT = 4


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


async def load_run(
    connection: Connection,
    environment_id: EnvironmentId,
    run_id: RunId,
    *,
    is_folded: bool = True,
    limit: int = FIRST_ROWS,
    wanted: StepFilter | None = None,
    part: Span | None = None,
) -> RunPage | None:
    """The run and its timeline; None when this environment has no such run. At most four statements.

    The arguments are those of `timeline.build`.
    """
    rows = await rows_by_id(connection, environment_id, [run_id])
    if not rows:
        return None
    row = rows[0]
    around = await load_around(connection, environment_id, run_id)
    facts = _KEPT.get(row) or await _load_facts(connection, environment_id, row, around)
    _KEPT.put(row, facts)
    return RunPage(row, build(facts, is_folded=is_folded, limit=limit, wanted=wanted, part=part), facts, around)


async def load_inside(
    connection: Connection, environment_id: EnvironmentId, parent_id: RunId, child_id: RunId, scale: Scale
) -> tuple[RunRow, RunRow, tuple[Row, ...], int] | None:
    """(parent, child, the child's steps on the parent's scale, steps left out); None unless one invoked the other.

    Four statements.
    """
    rows = {row.id: row for row in await rows_by_id(connection, environment_id, [parent_id, child_id])}
    parent, child = rows.get(parent_id), rows.get(child_id)
    if parent is None or child is None or child.parent_run != parent.ulid:
        return None
    around = await load_around(connection, environment_id, child_id)
    facts = await _load_facts(connection, environment_id, child, around)
    shown, left_out = inside(facts, ms_since(parent.queued_at, child.queued_at), scale)
    return parent, child, shown, left_out


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
                  case when kind in ('call', 'gateway') and octet_length(detail) <= 200000 then detail end as detail
           from history where run_id = $1 and environment_id = $2 order by version, position limit $3""",
        run_id,
        environment_id,
        _MOST_HISTORY,
    )
    return facts_of(row, steps, history, around.items)


async def run_version(connection: Connection, environment_id: EnvironmentId, run_id: RunId) -> tuple[int, bool] | None:
    """(version, has it ended): all a stream needs to know; None when there is no such run."""
    record = await connection.fetchrow(
        "select version, ended_at is not null as is_ended from runs where id = $1 and environment_id = $2",
        run_id,
        environment_id,
    )
    return None if record is None else (record["version"], record["is_ended"])
