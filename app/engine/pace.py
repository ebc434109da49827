"""How many items a worker holds at once: as many as it can serve while its own queues stay short.

An app that takes seconds costs the worker nothing while it thinks, so hundreds of calls may be open. An app that answers at
once makes the worker itself the bottleneck: then every further open call only waits in line with the others, and so does
the event of whoever comes next. The time of one pass of the event loop tells the two apart. Runs with much state are held in
smaller numbers: what is in memory has a bound in octets, too. Counts only; what is leased and for whom is decided in `queue.py`.
"""

from dataclasses import dataclass, field

from app.domain.limits import MIB

#: Seconds a pass of the loop may take before fewer items are held; a step takes about five passes.
_LONG_PASS_S = 0.004
#: Never fewer: the batches of the group commit are made of them.
_LEAST = 24
#: Octets of state of the runs in memory beyond which no further run is taken.
MOST_OCTETS = 256 * MIB
#: How fast the number falls and rises, per round.
_FALL, _RISE, _RISE_BY = 0.9, 1.1, 2
#: Weight of the newest pass in the average.
_NEWEST = 0.15


@dataclass(slots=True)
class Pace:
    """The pace of one worker. `most` is what it may hold in any case."""

    most: int
    limit: int = field(init=False)
    _pass_s: float = 0.0

    def __post_init__(self) -> None:
        """Begin with all there is."""
        self.limit = self.most

    def passed(self, seconds: float, held: int) -> None:
        """Note how long a pass of the loop took while `held` items were in hand."""
        self._pass_s += (seconds - self._pass_s) * _NEWEST
        if self._pass_s > _LONG_PASS_S:
            # From what is held, not from what would be allowed: the limit may be far away.
            self.limit = max(_LEAST, int(min(self.limit, held) * _FALL))
        elif held >= self.limit:
            self.limit = min(self.most, int(self.limit * _RISE) + _RISE_BY)

    def room(self, held: int, octets: int, beyond: int = 0) -> int:
        """How many more items may be held, of which `held` have `octets` of state: the next ones are taken for such as these.

        `beyond` is how many more than the pace allows are bearable; the bound in octets holds in any case.
        """
        left = self.limit + beyond - held
        if held and octets:
            left = min(left, (MOST_OCTETS - octets) * held // octets)
        return max(0, left)

    @property
    def is_rising(self) -> bool:
        """Whether more may be allowed soon, though nothing ends."""
        return self.limit < self.most and self._pass_s <= _LONG_PASS_S
