"""A sheet is the run, written on: nothing of it is lost on the way."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.domain.ids import FunctionId, RunId
from app.domain.run.fold import Sheet, at_version
from app.domain.run.state import Defer, Item, ItemKind, RetryPolicy, Run, RunStatus, Step, StepKind, StepState

ODD = Run(
    id=RunId(UUID(int=1)),
    function_id=FunctionId(UUID(int=2)),
    status=RunStatus.RUNNING,
    version=3,
    request_version=4,
    is_planned=True,
    completed=5,
    pending=6,
    group="g",
    discoveries=7,
    state_bytes=8,
    retry=RetryPolicy(9),
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    max_steps=10,
    max_sleep=timedelta(days=11),
    finish_within=timedelta(days=12),
    is_quiet=True,
    steps={"s": Step("s", StepKind.RUN, StepState.COMPLETED)},
    items={"i": Item("i", ItemKind.STEP)},
    defers={"d": Defer(True)},
)


def test_a_sheet_that_nothing_is_written_on_reads_as_the_run_in_every_field() -> None:
    usual = Run(ODD.id, ODD.function_id)
    unusual = [field.name for field in fields(Run) if getattr(ODD, field.name) != getattr(usual, field.name)]
    assert [*unusual] == [field.name for field in fields(Run)][2:], "a field of ODD is as usual: give it another value"

    assert Sheet(ODD).read() == ODD
    assert at_version(ODD, 99) == replace(ODD, version=99)
