"""What must hold of the runs, by the app's ledger and the rows, whatever was cut or killed. Pure.

The promise is at least once for executions and exactly once for results: a step may be executed again when the worker
that called it was struck before its result was stored, and for no other reason; what was stored never changes, and no
call is sent for it afterwards.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.machines.app import STEPS
from tests.chaos.storm.programs import step_key

#: Seconds around a strike in which a call of the struck worker may lose its answer: the call before it may be under way,
#: and what the kernel still holds for a cut worker arrives when the cable is back.
_BEFORE_S, _AFTER_S = 2.0, 20.0


@dataclass(frozen=True, slots=True)
class Strike:
    """The worker at `address` was struck between two moments, seconds since 1970."""

    address: str
    began: float
    ended: float


@dataclass(slots=True)
class Verdict:
    """What is wrong, one line each, and what was counted."""

    wrong: list[str] = field(default_factory=list)
    executions: int = 0
    repeated: int = 0
    #: Steps of struck workers' runs that the other worker did while they were away.
    taken_over: int = 0


def judge(
    accepted: set[str],
    runs: Sequence[Mapping[str, Any]],
    stored: Mapping[tuple[str, str], tuple[str, float]],
    ledger: Sequence[Mapping[str, Any]],
    strikes: Sequence[Strike],
) -> Verdict:
    """Judge a finished trial.

    `accepted`: ids of acknowledged events. `runs`: rows with `id`, `event_id`, `status` and `output`, ids as ULID texts.
    `stored`: (run, step) → its stored token and when it was committed. `ledger`: lines of `app.py`, oldest first.
    """
    verdict = Verdict()
    _each_event_once(accepted, runs, stored, verdict)
    _nothing_changed(stored, ledger, verdict)
    _repeated_for_a_reason(stored, ledger, strikes, verdict)
    return verdict


def _each_event_once(
    accepted: set[str],
    runs: Sequence[Mapping[str, Any]],
    stored: Mapping[tuple[str, str], tuple[str, float]],
    verdict: Verdict,
) -> None:
    by_event = defaultdict(list)
    for run in runs:
        by_event[run["event_id"]].append(run)
    for event in sorted(accepted):
        found = by_event[event]
        if len(found) != 1:
            verdict.wrong.append(f"event {event} has {len(found)} runs, one expected")
    for run in runs:
        if run["status"] != "completed":
            verdict.wrong.append(f"run {run['id']} is {run['status']}")
            continue
        result = [stored.get((run["id"], step_key(name)), ("", 0.0))[0] for name in STEPS]
        if run["output"] != result:
            verdict.wrong.append(f"run {run['id']} returned {run['output']}, stored are {result}")


def _nothing_changed(
    stored: Mapping[tuple[str, str], tuple[str, float]], ledger: Sequence[Mapping[str, Any]], verdict: Verdict
) -> None:
    made = {line["token"]: (line["run"], line["step"]) for line in ledger if line["k"] == "began"}
    for pair, (token, _) in stored.items():
        if token and made.get(token) != pair:
            verdict.wrong.append(f"{pair} has the stored result {token}, which was never made for it")
    for line in ledger:
        if line["k"] != "told":
            continue
        for step, token in line["steps"].items():
            if stored.get((line["run"], step), ("", 0.0))[0] != token:
                verdict.wrong.append(f"{line['run']} was told {token} for {step[:8]}, which is not what is stored")


def _repeated_for_a_reason(
    stored: Mapping[tuple[str, str], tuple[str, float]],
    ledger: Sequence[Mapping[str, Any]],
    strikes: Sequence[Strike],
    verdict: Verdict,
) -> None:
    executed = defaultdict(list)
    for line in ledger:
        if line["k"] == "began":
            executed[line["run"], line["step"]].append(line)
    for pair, lines in executed.items():
        verdict.executions += len(lines)
        _, committed = stored.get(pair, ("", float("inf")))
        for line in lines:
            if line["sent"] > committed:
                verdict.wrong.append(f"{pair} was called {line['sent'] - committed:.1f} s after its result was stored")
        if len(lines) == 1:
            continue
        verdict.repeated += len(lines) - 1
        if not any(_was_struck(line, strikes) for line in lines):
            verdict.wrong.append(f"{pair} was executed {len(lines)} times, and no worker that did was struck")
        if len({line["gen"] for line in lines}) != len(lines):
            verdict.wrong.append(f"{pair} was executed twice under one lease")
    for strike in strikes:
        theirs = {line["run"] for line in ledger if line["k"] == "told" and line["by"] == strike.address}
        verdict.taken_over += sum(
            1
            for line in ledger
            if line["k"] == "began"
            and line["run"] in theirs
            and line["by"] != strike.address
            and strike.began < line["at"] <= strike.ended
        )


def _was_struck(line: Mapping[str, Any], strikes: Sequence[Strike]) -> bool:
    return any(s.address == line["by"] and s.began - _BEFORE_S <= line["at"] <= s.ended + _AFTER_S for s in strikes)
