"""What the engine takes for asyncpg: pools, connections and transactions over the pretended store.

Every statement travels (the store may change meanwhile), runs as a whole, and its answer travels back. Where a connection
is cut, nobody knows whether the statement ran: half of them did.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import asyncpg

from tests.simulation.loop import ACTOR, Actor, SimulatedLoop
from tests.simulation.store import LOCK_TIMEOUT_S, MustWait, Store, Transaction

Model = Callable[["Query"], list[dict[str, Any]]]


class Lost(asyncpg.ConnectionDoesNotExistError):
    """The connection was cut."""


@dataclass(frozen=True, slots=True)
class Query:
    """A statement as its model sees it: the transaction it is part of, its arguments by name, and the house's counters."""

    t: Transaction
    v: dict[str, Any]
    server: "Server"
    parts: tuple[str, ...] = ()

    def uuid(self) -> Any:
        """What `gen_random_uuid()` answers."""
        return self.server.uuid()


@dataclass
class Server:
    """The server's side of all connections. `planted` names the faults built in on purpose."""

    store: Store
    loop: SimulatedLoop
    rng: Random
    uuid: Callable[[], Any]
    find: Callable[[str], tuple[Model, tuple[str, ...], tuple[str, ...]]]
    planted: frozenset[str] = frozenset()
    seen: Counter[str] = field(default_factory=Counter)
    is_calm: bool = False
    open: dict[Transaction, Actor | None] = field(default_factory=dict)
    #: Actors whose statements are lost, until when.
    cuts: dict[Actor, float] = field(default_factory=dict)
    #: Told of every statement, by whom it is sent.
    sent: Callable[[Actor | None], None] = lambda _actor: None

    def latency(self) -> float:
        """Seconds on the way; now and then long."""
        draw = self.rng.random()
        if self.is_calm or draw < 0.96:
            return 0.0002 + draw * 0.002
        return 0.02 if draw < 0.99 else 0.4

    def is_cut(self, actor: Actor | None) -> bool:
        """Whether the statement's connection is being cut."""
        return actor is not None and self.cuts.get(actor, 0.0) > self.loop.now and self.rng.random() < 0.5

    def begin(self, actor: Actor | None) -> Transaction:
        """A transaction of a client."""
        transaction = Transaction(self.store, actor)
        self.open[transaction] = actor
        transaction.on_end.append(partial(self._closed, transaction))
        return transaction

    def _closed(self, transaction: Transaction) -> None:
        self.open.pop(transaction, None)

    def client_died(self, actor: Actor) -> None:
        """What its connections had not committed is gone."""
        for transaction in [t for t, of in self.open.items() if of is actor]:
            transaction.end()

    def later(self, delay: float, callback: Callable[..., None], *args: Any) -> None:
        """Do something in the server, whoever dies."""
        self.loop.call_later(delay, callback, *args, context=Context())


_TORN = frozenset({"settle", "enqueue", "retry", "open_pauses", "close_pauses", "free_slots", "finish", "emit"})


@dataclass(eq=False)
class Connection:
    """One connection. In a transaction its statements share it, else each is its own."""

    server: Server
    actor: Actor | None
    transaction_open: Transaction | None = None
    is_lost: bool = False

    async def fetch(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """Run a statement; raises what asyncpg raises."""
        model, names, parts = self.server.find(sql)
        values = dict(zip(names, arguments, strict=True))
        if self.is_lost:
            raise Lost("connection is closed")
        return await self._travel(model, values, parts)

    async def fetchval(self, sql: str, *_arguments: Any) -> Any:
        """Of the statements that answer one value only housekeeping is left, which finds nothing to do here."""
        return self.server.store.now() if "select clock()" in sql else 0

    async def execute(self, _sql: str, *_arguments: Any) -> str:
        """Housekeeping."""
        return "DELETE 0"

    def transaction(self) -> "Block":
        """A transaction of several statements."""
        return Block(self)

    async def _travel(self, model: Model, values: dict[str, Any], parts: tuple[str, ...]) -> list[dict[str, Any]]:
        server, mine = self.server, self.transaction_open
        future: asyncio.Future[list[dict[str, Any]]] = server.loop.create_future()
        transaction = mine or Transaction(server.store, self.actor)
        server.sent(self.actor)
        cut = server.is_cut(self.actor)
        if cut:
            server.seen["connection cut"] += 1
            if server.rng.random() < 0.5:
                self._lose()
                await asyncio.sleep(server.latency())
                raise Lost("connection was closed in the middle of operation")
        answer = _Answer(self, future, transaction, mine is None, model, Query(transaction, values, server, parts), cut)
        server.later(server.latency(), answer.run)
        return await future

    def _lose(self) -> None:
        self.is_lost = True
        if self.transaction_open is not None:
            self.transaction_open.end()


@dataclass(eq=False)
class _Answer:
    """A statement under way."""

    connection: Connection
    future: "asyncio.Future[list[dict[str, Any]]]"
    transaction: Transaction
    is_alone: bool
    model: Model
    query: Query
    is_cut: bool
    tries: int = 0
    is_timed: bool = False

    def run(self) -> None:
        """Run it, or wait for a lock."""
        t, server = self.transaction, self.connection.server
        if t.is_over or self.future.cancelled():
            if self.is_alone:
                t.end()
            return
        t.waits_for = None
        before = t.savepoint()
        try:
            rows = self._rows()
        except MustWait as wait:
            t.changes = before
            self._wait(wait.holder)
            return
        except Exception as error:  # noqa: BLE001 - it belongs to the client
            t.end()
            self._fail(error)
            return
        if self.is_alone:
            t.commit()
        if self.is_cut:
            self.connection._lose()
            server.later(server.latency(), self._fail, Lost("connection was closed in the middle of operation"))
        elif server.rng.random() < 0.5:
            server.later(server.latency(), self._tell, rows)
        else:
            self._tell(rows)

    def _rows(self) -> list[dict[str, Any]]:
        parts, server = self.query.parts, self.connection.server
        if not (parts and self.is_alone and "commit torn in two" in server.planted):
            return self.model(self.query)
        # The planted fault: the second half of the parts is a statement of its own, which the client sends later.
        first = Query(self.query.t, self.query.v, server, tuple(p for p in parts if p not in _TORN))
        rows = self.model(first)
        winners = {row["n"] for row in rows}
        rest = tuple(p for p in parts if p in _TORN)
        self.connection.server.loop.call_later(
            0.05, self._second_half, rest, winners, context=_context(self.connection.actor)
        )
        return rows

    def _second_half(self, parts: tuple[str, ...], winners: set[int]) -> None:
        t = Transaction(self.connection.server.store, self.connection.actor)
        query = Query(t, self.query.v | {"torn": winners}, self.connection.server, parts)
        try:
            self.model(query)
        except MustWait:
            t.end()
            self.connection.server.later(0.01, self._second_half, parts, winners)
            return
        t.commit()

    def _wait(self, holder: Transaction) -> None:
        server, t = self.connection.server, self.transaction
        other: Transaction | None = holder
        while other is not None:
            if other is t:
                server.seen["deadlock"] += 1
                t.end()
                self._fail(asyncpg.DeadlockDetectedError("deadlock detected"))
                return
            other = other.waits_for
        server.seen["waited for a lock"] += 1
        t.waits_for = holder
        self.tries += 1
        holder.on_end.append(lambda: server.later(0.0, self.run))
        if not self.is_timed:
            self.is_timed = True
            server.later(LOCK_TIMEOUT_S, self._give_up)

    def _give_up(self) -> None:
        if self.transaction.waits_for is not None and not self.future.done():
            self.transaction.waits_for = None
            self.transaction.end()
            self._fail(asyncpg.LockNotAvailableError("canceling statement due to lock timeout"))

    def _tell(self, rows: list[dict[str, Any]]) -> None:
        if not self.future.done():
            self.future.set_result(rows)

    def _fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _context(actor: Actor | None) -> Context:
    context = Context()
    context.run(ACTOR.set, actor)
    return context


@dataclass(eq=False)
class Block(AbstractAsyncContextManager[None]):
    """`async with connection.transaction()`."""

    connection: Connection

    async def __aenter__(self) -> None:
        self.connection.transaction_open = self.connection.server.begin(self.connection.actor)

    async def __aexit__(self, kind: type[BaseException] | None, *_more: object) -> None:
        connection, server = self.connection, self.connection.server
        t = connection.transaction_open
        assert t is not None
        connection.transaction_open = None
        if kind is not None:
            t.end()
            return
        if connection.is_lost:
            raise Lost("connection is closed")
        cut = server.is_cut(connection.actor)
        if cut and server.rng.random() < 0.5:
            t.end()
            raise Lost("connection was closed before the commit")
        future: asyncio.Future[None] = server.loop.create_future()

        def commit() -> None:
            t.commit()
            server.later(server.latency() if server.rng.random() < 0.5 else 0.0, answer)

        def answer() -> None:
            if future.done():
                return
            if cut:
                future.set_exception(Lost("connection was closed in the middle of the commit"))
            else:
                future.set_result(None)

        server.later(server.latency(), commit)
        await future


@dataclass(eq=False)
class _Acquire(AbstractAsyncContextManager[Connection]):
    server: Server

    async def __aenter__(self) -> Connection:
        return Connection(self.server, ACTOR.get())

    async def __aexit__(self, *_error: object) -> None:
        return None


@dataclass(eq=False)
class Pool:
    """`pool.acquire(…)`: there is always a connection."""

    server: Server

    def acquire(self, timeout: float | None = None) -> _Acquire:
        """A fresh connection of the actor that asks."""
        return _Acquire(self.server)
