"""`python -m tests.simulation SEED [COUNT] [--plant NAME]`: plays histories again and says what happened."""

import argparse
import sys
from contextlib import ExitStack

from tests.simulation.explore import NOTHING, explore
from tests.simulation.laws import Breach
from tests.simulation.plan import draw
from tests.simulation.planted import ALL, planted


def main() -> int:
    """Play what the command line asks for; 1 when a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Plays histories from their seeds.")
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--plant", choices=ALL, help="build a fault in")
    asked = parser.parse_args()
    if asked.count == 1:
        print(draw(asked.seed).told())
    with ExitStack() as stack:
        faults = stack.enter_context(planted(asked.plant)) if asked.plant else NOTHING
        try:
            seen = explore(range(asked.seed, asked.seed + asked.count), faults)
        except Breach as breach:
            print(breach)
            return 1
    for what, count in sorted(seen.items()):
        print(f"{count:8} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
