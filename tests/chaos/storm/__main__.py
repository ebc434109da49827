"""The command: `python -m tests.chaos.storm --seed 7 --minutes 5`; ends with one line, PASS or FAIL, and how to repeat it."""

import argparse
import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

from tests.chaos.storm.planted import PLANTS
from tests.chaos.storm.storm import Storm
from tests.chaos.storm.strikes import BY_NAME
from tests.processes import ROOT


def main() -> int:
    """Run one storm."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="fresh if not given")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=2.0, help="requests per second")
    parser.add_argument("--plant", default="", help=f"bugs to plant, of {', '.join(PLANTS)}")
    parser.add_argument("--only", default="", help=f"faults to strike, of: {', '.join(BY_NAME)}")
    parser.add_argument("--json", type=Path, default=None, help="file for the result")
    wanted = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if wanted.seed is None else wanted.seed
    only = tuple(filter(None, wanted.only.split(",")))
    storm = Storm(seed, wanted.minutes * 60, wanted.rate, wanted.plant, only, say=lambda line: print(line, flush=True))
    print(f"storm of {wanted.minutes:g} minutes from seed {seed}", flush=True)
    code = newest_commit()
    asyncio.run(storm.run())
    report = {"code": code} | storm.report()
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, count in report["counts"].items():
        print(f"  {count:7} {name}")
    for name, count in report["struck"].items():
        print(f"  {count:7} struck: {name}")
    for name, value in report["figures"].items():
        print(f"  {value:7} {name}")
    for line in report["wrong"]:
        print(f"  WRONG {line}")
    print(f"{report['verdict']}  repeat with: make chaos SEED={seed} MINUTES={wanted.minutes:g}", flush=True)
    return 1 if storm.wrong else 0


def newest_commit() -> dict[str, str]:
    """What is struck: hash, time and subject of the checkout's newest commit, and whether files differ; empty without git."""
    asked = ["log", "-1", "--format=%h%n%aI%n%s"], ["status", "--porcelain", "--untracked-files=no"]
    try:
        said = [
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True) for words in asked
        ]
    except (OSError, subprocess.CalledProcessError):
        return {}
    commit, at, subject = said[0].stdout.rstrip("\n").split("\n")
    return {"commit": commit, "at": at, "subject": subject, "changed": "yes" if said[1].stdout else "no"}


if __name__ == "__main__":
    sys.exit(main())
