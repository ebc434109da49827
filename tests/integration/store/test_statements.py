"""Every named statement is understood by the migrated schema."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from app.store import db
from app.store.named import joined, named

FILES = sorted(p.stem for p in (Path(db.__file__).parent / "sql").glob("*.sql"))
WHOLE = [(file, name) for file in FILES if file != "commit" for name in db.statements(file)]
OPTIONAL = [
    "settle",
    "enqueue",
    "retry",
    "wake",
    "open_pauses",
    "close_pauses",
    "store_requests",
    "drop_requests",
    "add_defers",
    "abort_defers",
    "start_defers",
    "free_slots",
    "history",
    "emit",
    "finish",
]


@pytest.mark.parametrize(("file", "name"), WHOLE)
async def test_a_statement_of_a_file_is_prepared_by_the_engine_role(
    engine_connection: Any, file: str, name: str
) -> None:
    await engine_connection.prepare(named(file, name).sql)


@pytest.mark.parametrize("steps", [True, False])
async def test_every_pair_of_parts_makes_a_commit_statement(engine_connection: Any, steps: bool) -> None:
    start = ("guard", "steps" if steps else "no_steps", "run")
    for leases in ("hand_over", "no_hand_over"):
        for pair in itertools.combinations(OPTIONAL, 2):
            await engine_connection.prepare(joined("commit", (*start, leases, *pair, "answer")).sql)
        await engine_connection.prepare(joined("commit", (*start, leases, *OPTIONAL, "answer")).sql)


async def test_a_replay_reads_of_a_function_all_that_the_catalogue_reads(engine_connection: Any) -> None:
    wanted = (await engine_connection.prepare(named("functions", "of_environment").sql)).get_attributes()
    found = (await engine_connection.prepare(named("replay", "function").sql)).get_attributes()
    assert {column.name for column in wanted} <= {column.name for column in found}
