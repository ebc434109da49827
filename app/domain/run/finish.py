"""How a turn ends: the run finishes, or its item is retried or settled, and perhaps a discovery follows.

The one place that decides whether the app is called again after a step settled (protocol 13.2, 13.4):

    a race step settled                     discovery, whoever else is open
    the last open member settled            close the group, one discovery for all its members
    a member settled, others are open       nothing: the last one will call
    any other step settled                  discovery
    nothing settled, the app asks for one   discovery
    nothing settled, nothing else live      the answer is unreadable: an unfinished run always has a live item
"""

from datetime import timedelta
from typing import Final

from app.domain import retry
from app.domain.protocol.error_object import made_error
from app.domain.run import keys
from app.domain.run.effects import (
    AbortDefer,
    AddDefer,
    CloseGroup,
    Effect,
    EnqueueItem,
    FinishRun,
    LeaveGroup,
    RetryItem,
    SaveStep,
    SetPlanned,
    SetRequestVersion,
    SettleItem,
    StartRun,
)
from app.domain.run.state import Item, ItemKind, Run, RunStatus, Step
from app.domain.run.turn import Turn

#: Discoveries that follow no new step are free of the step limit, so they have one of their own: this many for every
#: step a run may have, and a hundred. An app that asks for ever is ended, not called for ever.
DISCOVERIES_PER_STEP: Final = 4
FREE_DISCOVERIES: Final = 100

#: What still counts when the run ends in the same breath; timers, waits and invokes opened beside it do not.
_LASTING = (StartRun, SetRequestVersion, SaveStep, AddDefer, AbortDefer)


def conclude(turn: Turn) -> list[Effect]:
    """The effects of a turn whose handlers have all spoken."""
    if turn.finish is None:
        _settle_item(turn)
    if turn.finish is None and not turn.is_unreadable:
        _go_on(turn)
    if turn.finish is not None:
        return [*(effect for effect in turn.effects if isinstance(effect, _LASTING)), turn.finish]
    if turn.is_unreadable:
        return unreadable(turn)
    return turn.effects


def unreadable(turn: Turn) -> list[Effect]:
    """Drop what was decided and try the item again: the answer would leave the run, or its step, without a future."""
    again = Turn(turn.run, turn.now, turn.item, turn.no_retry, turn.retry_after)
    error = made_error("app_response_invalid", "The app's answer does not tell how the run goes on.")
    start(again)
    retry_or_fail(again, error, "app_response_invalid")
    if again.retry is not None:
        again.add(again.retry)
    return [*again.effects, again.finish] if again.finish is not None else again.effects


def start(turn: Turn) -> None:
    """The first answer moves the run from queued to running."""
    if turn.sheet.status is RunStatus.QUEUED:
        turn.add(StartRun())
        if turn.run.finish_within is not None:
            turn.add(EnqueueItem(keys.FINISH_TIMEOUT, ItemKind.FINISH_TIMEOUT, after=turn.run.finish_within))


def retry_or_fail(turn: Turn, error: bytes, code: str) -> None:
    """A failure of the call as a whole: again while attempts remain, else it is the run's (protocol 14.1)."""
    if may_retry(turn):
        retry_item(turn, error)
    else:
        turn.finish = FinishRun(RunStatus.FAILED, error, code)


def may_retry(turn: Turn) -> bool:
    """Whether the item has attempts left and the app did not forbid another one."""
    return turn.item is not None and not turn.no_retry and turn.item.attempt + 1 < turn.run.retry.max_attempts


def retry_item(turn: Turn, error: bytes) -> None:
    """Call the same item again later, one attempt on; several failures in one answer are one retry."""
    if turn.item is not None and turn.retry is None:
        attempt = turn.item.attempt + 1
        after = _delay(turn.run, turn.item, attempt, turn.retry_after)
        turn.retry = RetryItem(turn.item.key, attempt, after, error)


def _delay(run: Run, item: Item, attempt: int, retry_after: timedelta | None) -> timedelta:
    return retry.delay(run.retry, run.id, item.key, attempt, retry_after)


def _settle_item(turn: Turn) -> None:
    item = turn.item
    if item is None:
        return
    if turn.retry is not None:
        turn.add(turn.retry)
        return
    turn.add(SettleItem(item.key))
    if item.kind is ItemKind.STEP and item.step_key is not None and not turn.is_settled(item.step_key):
        _leave_target(turn, item.step_key)


def _leave_target(turn: Turn, step_key: str) -> None:
    """A targeted call said nothing about its step. The loser of a race may be left behind; any other step may not."""
    target = turn.sheet.steps.get(step_key)
    if target is None or not target.is_race:
        turn.is_unreadable = True
        return
    if target.is_member:
        turn.add(LeaveGroup(step_key))


def _go_on(turn: Turn) -> None:
    sheet = turn.sheet
    closes = sheet.group is not None and sheet.pending <= 0
    key = _discovery(turn, closes)
    if closes:
        turn.add(CloseGroup())
    if turn.retry is not None and turn.item is not None and turn.item.kind is ItemKind.DISCOVER:
        return  # the retried call is itself the discovery that follows
    if key is not None:
        _discover(turn, key)
    elif not sheet.items:
        _refuse_to_stop(turn)


def _discover(turn: Turn, key: str) -> None:
    sheet = turn.sheet
    # With one call in the run's future, and nothing else, steps may run inline again. Version 1 never goes back (13.4).
    if sheet.is_planned and sheet.request_version >= 2 and sheet.group is None and not sheet.items:
        turn.add(SetPlanned(is_planned=False))
    turn.add(EnqueueItem(key, ItemKind.DISCOVER))


def _refuse_to_stop(turn: Turn) -> None:
    if turn.item is not None and turn.item.kind in (ItemKind.DISCOVER, ItemKind.STEP) and not turn.settled:
        turn.is_unreadable = True
    else:
        # Cannot happen to a run that was sound before; a wake-up is still no reason to strand one.
        turn.add(EnqueueItem(keys.discover_again(turn.sheet.discoveries + 1), ItemKind.DISCOVER))


def _discovery(turn: Turn, closes: bool) -> str | None:
    """The key of the discovery that follows this turn; None when none does."""
    sheet = turn.sheet
    if len(turn.settled) == 1:
        (only, before), *_ = turn.settled.items()
        if before is not None and before.is_race:
            return keys.discover_race(only)
    if closes and sheet.group is not None:
        return keys.discover_group(sheet.group)
    if any(not _waits_for_others(turn, before) for before in turn.settled.values()):
        return keys.discover(sheet.completed)
    return _again(turn) if turn.asks_again else None


def _waits_for_others(turn: Turn, before: Step | None) -> bool:
    """Whether the discovery that shows this step is the one of a group with open members."""
    if turn.sheet.pending <= 0 or (before is not None and before.is_race):
        return False
    return bool(turn.members) or (before is not None and before.is_member)


def _again(turn: Turn) -> str | None:
    allowed = turn.run.max_steps * DISCOVERIES_PER_STEP + FREE_DISCOVERIES
    if turn.sheet.discoveries >= allowed:
        turn.fail(
            "too_many_steps", "InngestErrFunctionOverflowed", "The function asks for another call again and again."
        )
        return None
    return keys.discover_again(turn.sheet.discoveries + 1)
