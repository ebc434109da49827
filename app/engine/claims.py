"""Names that an entry must own before it may be written: signals, claimed under the lock of the run.

Used by `transition` on its slow way only. See `signals.py` for the whole picture.
"""

from collections.abc import Sequence
from typing import Any

from app.domain.run.effects import Effect, OpenPause
from app.engine.apply import Entry
from app.store.named import fetch, named


def wanted_signals(effects: Sequence[Effect]) -> list[OpenPause]:
    """The waits for signals that these effects open."""
    return [effect for effect in effects if isinstance(effect, OpenPause) and effect.signal is not None]


async def claim_signals(connection: Any, entries: Sequence[Entry]) -> list[frozenset[str]]:
    """Take the names that the entries' waits want; for each entry, the names it was refused.

    Of two entries that want one name, the first has it, unless the later one replaces.
    """
    refused: list[set[str]] = [set() for _ in entries]
    winners: dict[tuple[Any, str], tuple[int, OpenPause]] = {}
    replacing: set[tuple[Any, str]] = set()
    for n, entry in enumerate(entries):
        for wait in wanted_signals(entry.effects):
            assert wait.signal is not None
            name = (entry.facts.scope.environment_id, wait.signal)
            if wait.conflict == "replace":
                replacing.add(name)
            elif name in winners:
                refused[n].add(wait.signal)
                continue
            winners[name] = (n, wait)
    if winners:
        names = list(winners)
        owners = [(entries[n], wait) for n, wait in winners.values()]
        taken = await fetch(
            connection,
            named("signals", "claim"),
            environment=[environment for environment, _ in names],
            signal=[signal for _, signal in names],
            account=[entry.facts.scope.account_id for entry, _ in owners],
            run_id=[entry.run.id for entry, _ in owners],
            step_key=[wait.step_key for _, wait in owners],
            replace_environment=[environment for environment, _ in replacing],
            replace_signal=[signal for _, signal in replacing],
        )
        got = {(row["environment_id"], row["signal"]) for row in taken}
        for name, (n, _) in winners.items():
            if name not in got:
                refused[n].add(name[1])
    return [frozenset(names) for names in refused]
