"""Rows of gates and lanes, as schedule.py, sync.py and replay.py write them; what they mean is decided there."""

from typing import Any
from uuid import UUID

from app.domain.flow.gates import EventRef, GateKind, GateState, Keys
from app.domain.flow.keys import shown
from app.domain.flow.lanes import Lane, Lanes
from app.domain.ids import FunctionId, LaneId, RunId
from app.domain.scope import Scope
from app.store.named import fetch, named


async def hold_gates(connection: Any, wanted: list[tuple[Scope, FunctionId, Keys]]) -> dict[UUID, GateState]:
    """Lock the rows of gates, in the order of their ids; missing ones are made first."""
    rows: dict[UUID, tuple[Any, ...]] = {}
    for scope, function_id, keys in wanted:
        for kind, row_id, key in keys:
            rows[row_id] = (row_id, scope.account_id, scope.environment_id, function_id, str(kind), shown(key))
    states: dict[UUID, GateState] = {}
    while len(states) < len(rows):  # a row may be tidied away between the two statements
        missing = [rows[row_id] for row_id in sorted(rows)]
        columns = list(zip(*missing, strict=True))
        await fetch(
            connection,
            named("flow", "make_gates"),
            id=columns[0],
            account=columns[1],
            environment=columns[2],
            function=columns[3],
            kind=columns[4],
            key=columns[5],
        )
        for row in await fetch(connection, named("flow", "hold_gates"), ids=list(rows)):
            states[row["id"]] = gate_state(row)
    return states


async def put_gates(connection: Any, states: dict[UUID, GateState]) -> None:
    """Write the changed rows back."""
    changed = [s for s in states.values() if s.is_changed]
    if not changed:
        return
    await fetch(
        connection,
        named("flow", "put_gates"),
        id=[s.id for s in changed],
        tat=[s.tat for s in changed],
        run=[s.run_id for s in changed],
        event=[s.event.id if s.event else None for s in changed],
        event_received_at=[s.event.received_at if s.event else None for s in changed],
        event_ts=[s.event_ts for s in changed],
        opened_at=[s.opened_at for s in changed],
        due_at=[s.due_at for s in changed],
        size=[s.size for s in changed],
        bytes=[s.bytes for s in changed],
    )


async def put_lanes(connection: Any, wanted: list[tuple[Scope, FunctionId, Lanes]]) -> None:
    """Make the lanes and keys of runs where they are not there yet; existing ones are not locked."""
    lanes: dict[LaneId, tuple[Scope, FunctionId, Lane]] = {}
    for scope, function_id, found in wanted:
        for lane in found.all:
            lanes[lane.id] = (scope, function_id, lane)
    ordered = [lanes[lane_id] for lane_id in sorted(lanes)]
    keys = {key.id: (scope, function_id, key) for scope, function_id, lane in ordered for key in lane.flow_keys}
    held = [keys[key_id] for key_id in sorted(keys)]
    await fetch(
        connection,
        named("flow", "make_lanes"),
        **lane_columns([(s.account_id, s.environment_id, f, lane) for s, f, lane in ordered]),
        key_id=[k.id for *_, k in held],
        key_account=[s.account_id for s, *_ in held],
        key_environment=[s.environment_id for s, *_ in held],
        key_function=[f for _, f, _ in held],
        key_scope=[k.scope for *_, k in held],
        key_text=[k.text for *_, k in held],
    )


def lane_columns(lanes: list[tuple[UUID, UUID, UUID, Lane]]) -> dict[str, Any]:
    """The columns of lanes for `make_lanes`; arrays of arrays travel as text, `,` between the ids."""
    return {
        "lane_id": [lane.id for *_, lane in lanes],
        "account": [account for account, *_ in lanes],
        "environment": [environment for _, environment, *_ in lanes],
        "function": [function for _, _, function, _ in lanes],
        "lane_key": [lane.key for *_, lane in lanes],
        "lane_flow_keys": [",".join(str(k.id) for k in lane.flow_keys) for *_, lane in lanes],
        "lane_limits": [",".join(str(k.limit_id) for k in lane.flow_keys) for *_, lane in lanes],
        "is_ranked": [lane.is_ranked for *_, lane in lanes],
    }


async def live_runs(connection: Any, run_ids: list[RunId]) -> set[RunId]:
    """Those of the runs that are not over; asked after their gates are held."""
    if not run_ids:
        return set()
    return {row["id"] for row in await fetch(connection, named("flow", "live_runs"), ids=run_ids)}


async def join_batches(connection: Any, joined: list[tuple[Any, ...]]) -> None:
    """Put events under the runs that their batches are going to be."""
    if joined:
        columns = list(zip(*joined, strict=True))
        names = ("run", "position", "account", "environment", "event", "received_at")
        await fetch(connection, named("flow", "join_batches"), **dict(zip(names, columns, strict=True)))


def gate_state(row: Any) -> GateState:
    """The state in a row of `gates`."""
    event = EventRef(row["event_id"], row["event_received_at"]) if row["event_id"] is not None else None
    return GateState(
        row["id"],
        GateKind(row["kind"]),
        row["key"],
        row["tat"],
        row["run_id"],
        event,
        row["event_ts"],
        row["opened_at"],
        row["due_at"],
        row["size"],
        row["bytes"],
    )
