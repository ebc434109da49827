"""The first effects of a run."""

from datetime import timedelta

from app.domain.run.begin import begin
from app.domain.run.effects import EnqueueItem
from app.domain.run.fold import committed
from app.domain.run.state import ItemKind, Run
from tests.unit.domain.run.world import FUNCTION_ID, NOW, RUN_ID


def test_a_fresh_run_gets_one_discovery_now() -> None:
    assert begin(Run(RUN_ID, FUNCTION_ID)) == [EnqueueItem("start", ItemKind.DISCOVER)]


def test_a_run_for_later_gets_its_discovery_later() -> None:
    later = NOW + timedelta(hours=1)
    assert begin(Run(RUN_ID, FUNCTION_ID), at=later) == [EnqueueItem("start", ItemKind.DISCOVER, at=later)]


def test_a_run_begins_once() -> None:
    run = Run(RUN_ID, FUNCTION_ID)
    begun = committed(run, begin(run))
    assert begun.version == run.version + 1
    assert begin(begun) == []
