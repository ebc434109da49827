"""Rate limits and throttles on a real database against a model of their own: buckets of tokens, counted in fractions.

    rate limit    floor(limit / 10) + 1 at once, then one per period / limit; what is over makes no run and is answered
    throttle      burst + 1 at once, then one per period / limit; what is over waits, in its order

Full size: 10,000 events each. The figures are printed (`-s`).
"""

import os
import random
from collections import defaultdict
from fractions import Fraction

import pytest

from app.engine.engine import Engine
from tests.integration.engine import world as world_module
from tests.integration.engine.world import World, result

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
EVENTS, KEYS = (10_000, 20) if IS_FULL else (240, 6)
SECOND = 1_000_000
#: Functions that one event may all start: limit, and period in seconds.
RATES = {"tight": (3, 2), "tenth": (40, 4), "wide": (500, 60)} if IS_FULL else {"tight": (3, 1), "tenth": (40, 2)}
LIMIT, BURST = (10, 3) if IS_FULL else (20, 3)

#: When an item of a start is leased for the first time, by the clock that the lease itself compares with.
_WATCH_STARTS = """
create table if not exists start_log (run_id uuid, at timestamptz, place bigserial);
create or replace function log_start() returns trigger language plpgsql security definer as $$
begin
  insert into start_log (run_id, at) values (new.run_id, clock());
  return new;
end $$;
create or replace trigger log_starts after update on items for each row
  when (new.key = 'start' and old.fence = 0 and new.fence = 1) execute function log_start();
truncate start_log;
"""


class Tokens:
    """The model: so many tokens at most, of which `limit` grow in a period."""

    def __init__(self, most: int, limit: int, period: int) -> None:
        self.most, self.growth = most, Fraction(limit, period)
        self.tokens, self.at = Fraction(most), 0

    def take(self, at: int) -> bool:
        """Whether there is a token at this microsecond; it is gone then."""
        self.tokens = min(Fraction(self.most), self.tokens + (at - self.at) * self.growth)
        self.at = at
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def fullest(times: list[int], period: int) -> int:
    """The most of these microseconds in any window of a period; `times` are sorted."""
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - period:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The full size takes minutes."""
    monkeypatch.setattr(world_module, "PATIENCE_S", 600.0 if IS_FULL else 120.0)


async def storm(world: World, name: str, engine: Engine) -> None:
    """Send events as fast as they are reacted to, while the worker is killed twice and another takes its place."""
    dice = random.Random(7)
    deaths = [EVENTS // 3, EVENTS * 2 // 3]
    sent = 0
    while sent < EVENTS:
        size = min(dice.randrange(1, 40), EVENTS - sent)
        await world.send_many([(name, {"k": n % KEYS, "n": n}) for n in range(sent, sent + size)])
        sent += size
        if deaths and sent >= deaths[0]:
            deaths.pop(0)
            await world.kill(engine)
            engine = await world.engine()
        await world.until(lambda: world.value("select count(*) < 200 from inbox"))
    await world.until(lambda: world.value("select not exists (select from inbox)"))


@pytest.mark.timeout(900)
async def test_rate_limits_start_exactly_the_runs_of_the_model_and_answer_every_other_event(world: World) -> None:
    for slug, (limit, period) in RATES.items():
        rule = {"limit": limit, "period": f"{period}s", "key": "event.data.k"}
        await world.function(slug, lambda _c: result(), event="order/sent", rateLimit=rule)
    await storm(world, "order/sent", await world.engine())
    decided = await world.rows(
        "select f.slug, e.payload::jsonb -> 'data' ->> 'k' as k, d.event_id is null as is_started,"
        " (extract(epoch from coalesce(d.at, r.queued_at)) * 1000000)::bigint as at"
        " from events e cross join functions f"
        " left join runs r on r.event_id = e.id and r.function_id = f.id"
        " left join dispositions d on d.event_id = e.id and d.function_id = f.id and d.outcome = 'rate_limited'"
        " where (r.id is null) <> (d.event_id is null) order by at"
    )
    assert len(decided) == EVENTS * len(RATES)
    for slug, (limit, period) in RATES.items():
        started = 0
        for key in {row["k"] for row in decided}:
            rows = [row for row in decided if (row["slug"], row["k"]) == (slug, key)]
            model = Tokens(limit // 10 + 1, limit, period * SECOND)
            # Events of one transaction have one time; which of them is started is the order of the inbox, how many the model's.
            wanted: dict[int, int] = defaultdict(int)
            seen: dict[int, int] = defaultdict(int)
            for row in rows:
                wanted[row["at"]] += model.take(row["at"])
                seen[row["at"]] += row["is_started"]
            assert seen == wanted
            times = [row["at"] for row in rows if row["is_started"]]
            assert fullest(times, period * SECOND) <= limit + limit // 10
            started += len(times)
        print(f"\n{slug}: {started} of {EVENTS} events started a run, as the model says", end="")
        assert 0 < started < EVENTS


@pytest.mark.timeout(900)
async def test_a_throttle_starts_every_run_in_its_order_and_never_more_in_a_period_than_it_allows(world: World) -> None:
    await world.owner.execute(_WATCH_STARTS)
    rule = {"limit": LIMIT, "period": "1s", "burst": BURST, "key": "event.data.k"}
    await world.function("order", lambda _c: result(), throttle=rule)
    engines = [await world.engine() for _ in range(2)]
    await storm(world, "order/sent", engines[0])
    for row in await world.all_ended():
        assert row["status"] == "completed"
    starts: dict[str, list[int]] = defaultdict(list)
    together: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in await world.owner.fetch(
        "select e.payload::jsonb -> 'data' ->> 'k' as k, (e.payload::jsonb -> 'data' ->> 'n')::int as n, r.queued_at as made,"
        " (extract(epoch from s.at) * 1000000)::bigint as at from start_log s join runs r on r.id = s.run_id"
        " join events e on e.id = r.event_id order by min(s.place) over (partition by s.at), n"
    ):
        starts[row["k"]].append(row["at"])
        together[row["k"], row["made"]].append(row["n"])
    assert sum(len(times) for times in starts.values()) == EVENTS
    # Two workers may make the runs of two claims in either order; those of one claim go on in the order of their events.
    assert all(numbers == sorted(numbers) for numbers in together.values())
    most = 0
    for times in starts.values():
        model = Tokens(BURST + 1, LIMIT, SECOND)
        assert all(model.take(at) for at in sorted(times))
        most = max(most, fullest(sorted(times), SECOND))
    first, last = min(min(times) for times in starts.values()), max(max(times) for times in starts.values())
    least = (EVENTS // KEYS - BURST - 1) / LIMIT
    print(f"\n{EVENTS} runs of {KEYS} keys started, at most {most} of a key in a second ({LIMIT} and {BURST} allowed);"
          f" it took {(last - first) / SECOND:.1f} s, the least is {least:.1f} s")  # fmt: skip
    assert most <= LIMIT + BURST
