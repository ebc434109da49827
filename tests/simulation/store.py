"""A Postgres made of dictionaries: what architecture 5 relies on, and nothing else.

- read committed: a statement sees what is committed when it runs, and what its own transaction wrote
- a row that a transaction wrote or locked is locked to others until it ends; `skip locked` passes by, others wait, at most
  `lock_timeout`; a circle of waiters is a deadlock
- a primary key another open transaction has inserted is waited for
- a transaction commits whole or vanishes whole; the server ends those of a client that died
- one clock

Coarser than the real one in one thing: a statement that waited is run again from its start, so it also sees of other
tables what was committed meanwhile. No modelled statement locks and reads another table by the lock's answer, which is
rule 6.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]
Key = Any
Place = tuple[str, Key]

EPOCH = datetime(2026, 3, 1, tzinfo=UTC)
FOREVER = datetime.max.replace(tzinfo=UTC)
LOCK_TIMEOUT_S = 2.0


class MustWait(Exception):
    """The statement needs what another transaction holds."""

    def __init__(self, holder: "Transaction") -> None:
        super().__init__()
        self.holder = holder


@dataclass
class Store:
    """Committed rows, by table and primary key. `watch` sees every change before it is committed."""

    time: Callable[[], float]
    watch: Callable[["Transaction", dict[str, dict[Key, Row | None]]], None] = lambda _t, _c: None
    tables: dict[str, dict[Key, Row]] = field(default_factory=dict)
    locks: dict[Place, "Transaction"] = field(default_factory=dict)

    def now(self) -> datetime:
        """What `clock()` answers."""
        return EPOCH + timedelta(seconds=self.time())

    def table(self, name: str) -> dict[Key, Row]:
        """The committed rows of a table."""
        return self.tables.setdefault(name, {})


@dataclass(eq=False)
class Transaction:
    """One transaction of one connection."""

    store: Store
    #: The client.
    by: Any = None
    changes: dict[str, dict[Key, Row | None]] = field(default_factory=dict)
    held: set[Place] = field(default_factory=set)
    waits_for: "Transaction | None" = None
    is_over: bool = False
    on_end: list[Callable[[], None]] = field(default_factory=list)
    began: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.store.now()

    @property
    def now(self) -> datetime:
        return self.store.now()

    # ---- reading

    def get(self, table: str, key: Key) -> Row | None:
        """A row as this transaction sees it."""
        mine = self.changes.get(table)
        if mine is not None and key in mine:
            return mine[key]
        return self.store.table(table).get(key)

    def rows(self, table: str) -> Iterator[tuple[Key, Row]]:
        """All rows as this transaction sees them, in the order in which they were made."""
        mine = self.changes.get(table)
        if not mine:
            yield from list(self.store.table(table).items())
            return
        base = self.store.table(table)
        for key, row in list(base.items()):
            seen = mine.get(key, row)
            if seen is not None:
                yield key, seen
        for key, new in list(mine.items()):
            if new is not None and key not in base:
                yield key, new

    # ---- locking and writing

    def is_free(self, table: str, key: Key) -> bool:
        """Whether this transaction may lock the row now: what `skip locked` asks."""
        return self.store.locks.get((table, key), self) is self

    def lock(self, table: str, key: Key) -> None:
        """Lock a row for the rest of the transaction; raises `MustWait`."""
        place = (table, key)
        holder = self.store.locks.get(place, self)
        if holder is not self:
            raise MustWait(holder)
        if place not in self.held:
            self.store.locks[place] = self
            self.held.add(place)

    def put(self, table: str, key: Key, row: Row) -> None:
        """Insert or replace a row."""
        self.lock(table, key)
        self.changes.setdefault(table, {})[key] = row

    def update(self, table: str, key: Key, **columns: Any) -> None:
        """Change columns of a row, if it is there."""
        self.lock(table, key)
        row = self.get(table, key)
        if row is not None:
            self.changes.setdefault(table, {})[key] = row | columns

    def delete(self, table: str, key: Key) -> None:
        """Delete a row, if it is there."""
        if self.get(table, key) is not None:
            self.lock(table, key)
            self.changes.setdefault(table, {})[key] = None

    def insert(self, table: str, key: Key, row: Row) -> bool:
        """`insert … on conflict do nothing`: false when the key is there; waits for who is inserting it."""
        self.lock(table, key)
        if self.get(table, key) is not None:
            return False
        self.changes.setdefault(table, {})[key] = row
        return True

    # ---- ending

    def savepoint(self) -> dict[str, dict[Key, Row | None]]:
        """What was changed so far, to go back to."""
        return {table: dict(rows) for table, rows in self.changes.items()}

    def commit(self) -> None:
        """Make the changes everybody's."""
        if self.is_over:
            return
        self.store.watch(self, self.changes)
        for name, rows in self.changes.items():
            table = self.store.table(name)
            for key, row in rows.items():
                if row is None:
                    table.pop(key, None)
                else:
                    table[key] = row
        self.end()

    def end(self) -> None:
        """Give the locks back; what was not committed is gone."""
        if self.is_over:
            return
        self.is_over = True
        for place in self.held:
            self.store.locks.pop(place, None)
        self.held.clear()
        waiters, self.on_end = self.on_end, []
        for wake in waiters:
            wake()
