"""The arq jobs of Stepwell: short, without decisions. Calls to apps are never the body of a job (D3)."""

from typing import Any

from app.accounts.outbox import PostOffice
from app.adapters.arq import JobName, job
from app.engine.engine import Engine
from workers.billing import Billing

#: Where the running engine stands in arq's context.
ENGINE = "engine"
#: Where the one that sends mails stands, and billing's caretaker.
POST_OFFICE = "post_office"
BILLING = "billing"


async def drain(ctx: dict[str, Any]) -> None:
    """Look for work now."""
    engine: Engine = ctx[ENGINE]
    engine.wake()


async def keep(ctx: dict[str, Any]) -> None:
    """Run the keepers now instead of at the next second."""
    engine: Engine = ctx[ENGINE]
    await engine.keep_once()


async def work_off_bulk(ctx: dict[str, Any]) -> None:
    """Look for bulk actions now instead of within two seconds."""
    engine: Engine = ctx[ENGINE]
    engine.wake_bulk()


async def send_mail(ctx: dict[str, Any]) -> None:
    """Send what is in the outbox now instead of within seconds."""
    post_office: PostOffice = ctx[POST_OFFICE]
    await post_office.deliver()


async def look_after_billing(ctx: dict[str, Any]) -> None:
    """Read back what changed at Stripe now instead of within a minute."""
    billing: Billing = ctx[BILLING]
    billing.wake()


JOBS = (
    job(JobName.DRAIN, drain),
    job(JobName.KEEPER, keep),
    job(JobName.BULK, work_off_bulk),
    job(JobName.MAIL, send_mail),
    job(JobName.USAGE, look_after_billing),
)
