"""Reads the outbox as its worker would, for tests that follow links of mails."""

import re

from app.accounts import outbox
from app.adapters.mail import Letter
from app.adapters.sealing import Sealer
from app.store.db import Pool
from tests.integration.accounts.world import SECRET_KEY

#: With this in the environment, the web process takes it that mail leaves. Nobody listens there.
WITH_MAIL = {"STEPWELL_SMTP_URL": "smtp://127.0.0.1:1"}


async def letters_to(pool: Pool, address: str) -> list[Letter]:
    """The waiting letters to somebody, oldest first."""
    rows = await pool.fetch(
        "select recipient, sealed from mails where lower(recipient) = lower($1) and state = 'waiting'"
        " order by created_at, id",
        address,
    )
    return [outbox.open_letter(Sealer(SECRET_KEY), row["recipient"], row["sealed"]) for row in rows]


async def link_to(pool: Pool, address: str, kind: str) -> str:
    """The path of the newest link of a kind (reset, verify, invite) that was mailed to somebody."""
    texts = [letter.text for letter in await letters_to(pool, address)]
    return str(re.findall(rf"(/{kind}/[\w-]+)", "\n".join(texts))[-1])
