"""docs/overload.md names a test for each bound: that test must be there, and the numbers must be the code's."""

import re
from pathlib import Path

from app.accounts.passwords import MOST_WAITING as PASSWORDS
from app.adapters import answer_room, http
from app.engine import breaker, changes, ingest, pace
from app.main import POOL_WAIT_S
from app.web import live, load

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/overload.md").read_text(encoding="utf-8")
MIB = 1024 * 1024


def test_every_test_the_table_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) >= 15
    for path, name in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"def {name}\(", text), f"{path}::{name}"


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    bounds = ingest.Bounds()
    said = [
        f"{bounds.requests:,} requests, {bounds.events:,} events, {bounds.octets // MIB} MiB; {ingest.STALLED_S:.0f} s",
        f"| request bodies (web) | {load.MOST_OCTETS // MIB} MiB",
        f"| {changes.MOST_WAITING:,}; {changes.STALLED_S:.0f} s |",
        f"longer\nthan {POOL_WAIT_S:.0f} s for a free connection",
        f"| passwords to be looked at (web) | {PASSWORDS},",
        f"| streams of live pages (web) | {live.MOST_STREAMS:,} |",
        f"| state of runs in memory (worker) | {pace.MOST_OCTETS // MIB} MiB |",
        f"| large answers of apps (both) | {answer_room.MOST // MIB} MiB until",
        f"| a large answer that drips (both) | {http.LARGE_S:.0f} s |",
        f"After {breaker.OPENS_AFTER} calls in a row",
        f"a pause of {breaker.FIRST_PAUSE_S:.0f} s",
        f"up to {breaker.LONGEST_PAUSE_S:.0f} s (5 s in `dev`)",
        f"and so on up to {breaker.RAMP_ENDS}",
    ]
    assert [line for line in said if line not in PAGE] == []
