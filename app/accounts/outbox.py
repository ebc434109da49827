"""From a deed to a delivered mail: the letter is a row of the deed's transaction, a worker sends it afterwards.

    put()          in the transaction of the deed     the truth: `mails`, subject and text sealed
    nudge          arq job `mail`                     a hint; lost, the worker's own look every few seconds finds the row
    PostOffice     in every worker                    claims a row, sends it, marks it

A claim moves the row's time forward, so a worker that dies comes to no harm: the letter is sent again, perhaps twice.
What cannot be delivered is given up after `WAITS` is used up or when the server refuses for good.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import msgspec

from app.adapters.mail import Letter, MailFailed, Post
from app.adapters.sealing import CannotOpen, Sealer
from app.domain.errors import Outside
from app.domain.ids import AccountId, EnvironmentId
from app.domain.scope import Scope
from app.store import mails
from app.store.db import CONNECTION_LOST, Connection, Pool

#: Until the next try, after each one.
WAITS = [timedelta(minutes=m) for m in (1, 2, 5, 15, 60, 240, 720)]
#: How long ended letters are remembered, and how often a worker looks without being asked.
_KEPT = timedelta(days=7)
_LOOK_S = 10.0
#: Sealed for nobody in particular: letters belong to no account.
_NOBODYS = Scope(AccountId(UUID(int=0)), EnvironmentId(UUID(int=0)))

_log = logging.getLogger(__name__)


async def put(conn: Connection, sealer: Sealer, letter: Letter, kind: str, *, is_wanted: bool = True) -> None:
    """Put a letter into the outbox. The caller commits, and nudges a worker afterwards."""
    sealed = sealer.seal(msgspec.json.encode([letter.subject, letter.text]).decode(), _NOBODYS)
    await mails.insert_mail(conn, recipient=letter.recipient, kind=kind, sealed=sealed, is_wanted=is_wanted)


def putter(sealer: Sealer, *, is_wanted: bool) -> Callable[[Connection, Letter, str], Awaitable[None]]:
    """`put` for those who know neither the sealer nor whether there is mail: (connection, letter, kind)."""

    async def put_letter(conn: Connection, letter: Letter, kind: str) -> None:
        await put(conn, sealer, letter, kind, is_wanted=is_wanted)

    return put_letter


def open_letter(sealer: Sealer, recipient: str, sealed: bytes) -> Letter:
    """Read a letter of the outbox. Raises `CannotOpen` when another secret key sealed it."""
    subject, text = msgspec.json.decode(sealer.open(sealed, _NOBODYS), type=tuple[str, str])
    return Letter(recipient, subject, text)


def seal_detail(sealer: Sealer, detail: dict[str, str]) -> bytes:
    """Seal what a mailed link will need."""
    return sealer.seal(msgspec.json.encode(detail).decode(), _NOBODYS)


def open_detail(sealer: Sealer, sealed: bytes) -> dict[str, str]:
    """Read what a mailed link needs."""
    return msgspec.json.decode(sealer.open(sealed, _NOBODYS), type=dict[str, str])


class PostOffice:
    """Sends what is due. Any number of workers may have one: rows are claimed."""

    def __init__(self, pool: Pool, sealer: Sealer, post: Post | None) -> None:
        """`post` is none where no mail server is set; then nothing is sent, and nothing given up."""
        self._pool = pool
        self._sealer = sealer
        self._post = post

    async def deliver(self, *, most: int = 100) -> int:
        """Send letters until none is due, at most `most`; says how many went. No connection is held while sending."""
        if self._post is None:
            return 0
        sent = 0
        for _ in range(most):
            async with self._pool.acquire(timeout=10) as conn:
                mail = await mails.claim_mail(conn, waits=WAITS)
            if mail is None:
                break
            state, error = await self._try(self._post, mail)
            if state != "waiting":
                async with self._pool.acquire(timeout=10) as conn:
                    await mails.mark_mail(conn, mail.id, state=state, error=error)
            sent += state == "sent"
        return sent

    async def run(self) -> None:
        """Deliver every few seconds until cancelled, whatever happens to the database and the mail server."""
        while True:
            try:
                await self.deliver()
                async with self._pool.acquire(timeout=10) as conn:
                    await mails.drop_old(conn, older=_KEPT)
            except (Outside, *CONNECTION_LOST) as error:
                _log.warning("the outbox waits for the database", extra={"error": type(error).__name__})
            except Exception:  # noqa: BLE001 - one bad letter must not stop the post for good
                _log.exception("the outbox failed")
            await asyncio.sleep(_LOOK_S)

    async def _try(self, post: Post, mail: mails.Mail) -> tuple[str, str]:
        """The letter's next state, and why."""
        try:
            await post.send(open_letter(self._sealer, mail.recipient, mail.sealed))
        except CannotOpen as error:
            return "failed", error.code
        except MailFailed as error:
            is_over = not error.retryable or mail.attempts > len(WAITS)
            # Neither address nor answer is logged: both may say who has an account.
            _log.warning("a mail was not sent", extra={"mail_id": str(mail.id), "code": error.code, "final": is_over})
            return ("failed" if is_over else "waiting"), error.code
        return "sent", ""
