"""The command: `python -m tests.chaos.machines`; two rates and one line, PASS or FAIL."""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.chaos.machines.network import own_network, what_is_missing
from tests.chaos.machines.trial import Trial

_BEHIND = "STEPWELL_TEST_OWN_NETWORK"
"""Set for the process that has a network of its own."""


def main() -> int:
    """Run one trial: 0 when it passes, 1 when it fails, 3 where machines of pretence cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.machines", description=__doc__)
    parser.add_argument("--rate-seconds", type=float, default=8.0, help="full load for each rate; 0 measures none")
    parser.add_argument("--only-cut", action="store_true", help="leave out the worker that is killed")
    parser.add_argument("--json", type=Path, default=None, help="file for the result")
    wanted = parser.parse_args()
    if os.environ.get(_BEHIND) != str(os.getpid()):
        missing = what_is_missing()
        if missing:
            print(missing)
            return 3
        # The process id stays the same, so nobody else takes the mark for theirs.
        os.environ[_BEHIND] = str(os.getpid())
        os.execvp("unshare", [*own_network(), sys.executable, "-P", "-m", "tests.chaos.machines", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    trial = Trial(wanted.rate_seconds, not wanted.only_cut, say=lambda line: print(line, flush=True))
    try:
        asyncio.run(trial.run())
    except KeyboardInterrupt:
        return 130
    for name, value in trial.figures.items():
        print(f"  {value:10,.1f} {name}")
    for line in trial.wrong:
        print(f"  WRONG {line}")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps({"wrong": trial.wrong, "figures": trial.figures}, indent=1) + "\n")
    print("FAIL" if trial.wrong else "PASS")
    return 1 if trial.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
