"""Short storms: nothing acknowledged is lost, nothing committed is done again; and a planted bug does not pass.

Long ones are `make chaos`; what they struck and found is in docs/chaos.
"""

import pytest

from tests.chaos.conftest import IS_FULL
from tests.chaos.storm.planted import PLANTS
from tests.chaos.storm.storm import Storm

SEEDS, SECONDS = ((3, 4, 5), 60.0) if IS_FULL else ((3,), 6.0)
CAUGHT_BY = {"lease_guard": "I8", "transaction": "I3", "timeout_item": "I13", "slot": "I18"}
TOGETHER = [",".join(PLANTS)]
"""In the small size one storm has all bugs; in the full size each has a storm of its own."""


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_or_done_twice_in_a_storm(seed: int) -> None:
    storm = Storm(seed, SECONDS)
    assert await storm.run(), "\n".join(storm.wrong)

    # Generous bounds: this machine may be shared. The figures of quiet ones are in docs/chaos.
    assert storm.figures["first run without Redis, mail and telemetry, s"] < 60
    assert storm.figures["first good ingest after a restart of the database under load, s"] < 60


@pytest.mark.parametrize("plants", sorted(PLANTS) if IS_FULL else TOGETHER)
async def test_a_planted_bug_is_found(plants: str) -> None:
    storm = Storm(5, 5.0, per_s=6.0, plant=plants, only=("nothing",), stalled_s=4.0)
    assert not await storm.run()
    for plant in plants.split(","):
        assert any(f"{CAUGHT_BY[plant]}:" in wrong for wrong in storm.wrong), f"{plant}: {storm.wrong}"
