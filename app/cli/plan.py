"""`stepwell plan`: which plan an organization has, and giving it one by hand."""

import asyncio
import importlib
import os
from typing import Any

import click

from app.cli.database import find_target
from app.cli.house import PLACEHOLDERS
from app.config import load

_OPERATOR = "operator"


@click.command()
@click.argument("organization")
@click.argument("name", required=False)
@click.option("--take-back", is_flag=True, help="Take back what was given by hand: what is paid for holds again.")
def plan(organization: str, name: str | None, take_back: bool) -> None:
    """Show the plan of ORGANIZATION (its name in addresses), or give it the plan NAME by hand.

    A plan given by hand goes before anything that is paid for. Every process goes by it within seconds.
    """
    if name is not None and take_back:
        raise click.UsageError("give a plan or take it back, not both")
    with find_target() as target:
        click.echo(asyncio.run(_plan(target.database_url, target.secret_key, organization, name, take_back)))


async def _plan(database_url: str, secret_key: str, slug: str, name: str | None, take_back: bool) -> str:
    """Do it and say what holds now."""
    entitlements: Any = importlib.import_module("app.billing.entitlements")
    store: Any = importlib.import_module("app.store.accounts")
    db: Any = importlib.import_module("app.store.db")
    errors: Any = importlib.import_module("app.domain.errors")
    pool = await db.open_engine_pool(database_url, size=1)
    try:
        async with pool.acquire() as conn, conn.transaction():
            if name is None and not take_back:
                account = await store.find_account_by_slug(conn, slug)
                if account is None:
                    raise entitlements.OrganizationUnknown
                return f"{slug}: {await store.find_plan(conn, account.id)}"
            actor = importlib.import_module("app.store.audit").Actor(_OPERATOR)
            has = await entitlements.give_plan(conn, _house(secret_key), slug, name, actor)
            return f"{slug}: {has}"
    except errors.Refused as refused:
        raise click.ClickException(refused.message) from None
    finally:
        await pool.close()


def _house(secret_key: str) -> Any:
    """What billing needs of this installation; mails go into the outbox, for a worker to send."""
    settings = load({**PLACEHOLDERS, **{k: v for k, v in os.environ.items() if v.strip()}})
    sealer = importlib.import_module("app.adapters.sealing").Sealer(secret_key)
    put_letter = importlib.import_module("app.accounts.outbox").putter(sealer, is_wanted=settings.smtp_url is not None)
    standing = importlib.import_module("app.billing.standing")
    return standing.House(settings.base_url, put_letter, is_hosted=settings.hosted)
