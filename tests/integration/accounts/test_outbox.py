"""From a row of the outbox to a delivered letter, whatever happens to workers and the mail server in between."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.accounts import outbox
from app.accounts.outbox import WAITS, PostOffice
from app.adapters.arq import BellWorker, JobName, enqueue, open_pool, redis_settings
from app.adapters.mail import Letter, Post
from app.adapters.sealing import Sealer
from app.store.db import Pool
from tests.smtp_sink import Sink, running_sink
from workers.jobs import JOBS, POST_OFFICE

SENDER = "no-reply@stepwell.example"
SECRET = "https://stepwell.example/reset/only-in-the-mail"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Give a mail server."""
    async with running_sink() as running:
        yield running


@pytest.fixture(autouse=True)
async def empty_outbox(engine_pool: Pool) -> None:
    """Begin without the letters of other tests."""
    await engine_pool.execute("delete from mails")


async def put(pool: Pool, sealer: Sealer) -> str:
    to = f"{uuid4().hex[:8]}@example.com"
    async with pool.acquire() as conn, conn.transaction():
        await outbox.put(conn, sealer, Letter(to, "Subject", SECRET), "test")
    return to


async def row(pool: Pool, to: str) -> tuple[str, int, bool]:
    found = await pool.fetchrow("select state, attempts, sealed is null from mails where recipient = $1", to)
    return tuple(found)


async def move_on(pool: Pool) -> None:
    await pool.execute("update mails set due_at = due_at - interval '2 days'")


async def test_a_letter_is_sent_once_by_however_many_workers(engine_pool: Pool, sealer: Sealer, sink: Sink) -> None:
    to = await put(engine_pool, sealer)
    offices = [PostOffice(engine_pool, sealer, Post(sink.url, SENDER)) for _ in range(3)]
    assert sum(await asyncio.gather(*(office.deliver() for office in offices))) == 1
    assert [letter["To"] for letter in sink.letters] == [to]
    assert sink.text_to(to).strip() == SECRET
    assert await row(engine_pool, to) == ("sent", 1, True)


async def test_links_do_not_lie_in_the_clear(engine_pool: Pool, sealer: Sealer) -> None:
    to = await put(engine_pool, sealer)
    sealed = await engine_pool.fetchval("select sealed from mails where recipient = $1", to)
    assert b"only-in-the-mail" not in sealed


async def test_a_letter_waits_for_a_mail_server_that_is_away(engine_pool: Pool, sealer: Sealer, sink: Sink) -> None:
    to = await put(engine_pool, sealer)
    sink.answers[to] = "450 later"
    office = PostOffice(engine_pool, sealer, Post(sink.url, SENDER))
    assert await office.deliver() == 0
    assert await office.deliver() == 0, "it is not due yet"
    assert await row(engine_pool, to) == ("waiting", 1, False)
    del sink.answers[to]
    await move_on(engine_pool)
    assert await office.deliver() == 1
    assert await row(engine_pool, to) == ("sent", 2, True)


async def test_a_worker_that_dies_while_sending_leaves_the_letter_to_others(
    engine_pool: Pool, sealer: Sealer, sink: Sink
) -> None:
    to = await put(engine_pool, sealer)

    class Dead(Post):
        async def send(self, letter: Letter) -> None:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await PostOffice(engine_pool, sealer, Dead(sink.url, SENDER)).deliver()
    await move_on(engine_pool)
    assert await PostOffice(engine_pool, sealer, Post(sink.url, SENDER)).deliver() == 1
    assert await row(engine_pool, to) == ("sent", 2, True)


async def test_a_letter_nobody_takes_is_given_up_and_forgotten(engine_pool: Pool, sealer: Sealer, sink: Sink) -> None:
    never, at_once = await put(engine_pool, sealer), await put(engine_pool, sealer)
    sink.answers |= {never: "450 later", at_once: "550 no such person"}
    office = PostOffice(engine_pool, sealer, Post(sink.url, SENDER))
    for _ in range(len(WAITS) + 1):
        await office.deliver()
        await move_on(engine_pool)
    assert await row(engine_pool, at_once) == ("failed", 1, True)
    assert await row(engine_pool, never) == ("failed", len(WAITS) + 1, True)


async def test_without_a_mail_server_nothing_is_given_up(engine_pool: Pool, sealer: Sealer) -> None:
    to = await put(engine_pool, sealer)
    assert await PostOffice(engine_pool, sealer, None).deliver() == 0
    assert await row(engine_pool, to) == ("waiting", 0, False)


async def test_pages_cannot_read_letters_or_links(page_pool: Pool) -> None:
    for table in ("mails", "link_tokens"):
        with pytest.raises(Exception, match="permission denied"):
            await page_pool.fetch(f"select * from {table}")


async def test_a_nudge_has_the_letter_sent_at_once(
    engine_pool: Pool, sealer: Sealer, sink: Sink, redis_url: str
) -> None:
    to = await put(engine_pool, sealer)
    office = PostOffice(engine_pool, sealer, Post(sink.url, SENDER))
    worker = BellWorker(JOBS, redis_settings=redis_settings(redis_url), ctx={POST_OFFICE: office})
    working = asyncio.create_task(worker.main())
    jobs = open_pool(redis_url)
    try:
        assert await enqueue(jobs, JobName.MAIL)
        async with asyncio.timeout(30):
            await sink.arrived.wait()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await worker.shut(5)
        await jobs.aclose(close_connection_pool=True)
    assert sink.letters[0]["To"] == to
