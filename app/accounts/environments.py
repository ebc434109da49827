"""Accounts and environments come with what they need to be useful: keys at once."""

import re
import unicodedata
from dataclasses import dataclass
from uuid import uuid4

from app.accounts import keys
from app.adapters.sealing import Sealer
from app.domain.errors import Refused
from app.domain.ids import AccountId, EnvironmentId
from app.domain.scope import Scope
from app.store import accounts, audit, endings
from app.store.audit import Actor
from app.store.db import Connection

_SLUG_CHARS = 48
#: Words that stand in the place of a slug in addresses of pages.
_NOT_SLUGS = frozenset({"new"})


class NameTaken(Refused):
    """There is one of that name already. Choose another name."""

    def __init__(self) -> None:
        super().__init__("name_taken")


class NameInvalid(Refused):
    """A name has 1 to 100 characters, at least one letter or digit."""

    def __init__(self) -> None:
        super().__init__("name_invalid")


class AccountEnding(Refused):
    """The organization is about to be deleted. An owner can keep it under Settings, Organization."""

    def __init__(self) -> None:
        super().__init__("account_ending")


class EnvironmentNeeded(Refused):
    """The production environment cannot be archived."""

    def __init__(self) -> None:
        super().__init__("environment_needed")


@dataclass(frozen=True, slots=True)
class NewEnvironment:
    """An environment that was just made, with its keys in the clear."""

    scope: Scope
    name: str
    slug: str
    event_key: str
    signing_key: str


async def create_account(
    conn: Connection, sealer: Sealer, actor: Actor, name: str
) -> tuple[accounts.Account, NewEnvironment]:
    """Make an account with its production environment and keys. Needs the engine role; the caller commits."""
    account_id = AccountId(uuid4())
    slug = slug_of(name)
    if not await accounts.insert_account(conn, account_id, name=checked_name(name), slug=slug):
        # Another organization may have the same name; addresses must still differ.
        slug = f"{slug[:_SLUG_CHARS]}-{account_id.hex[:8]}"
        await accounts.insert_account(conn, account_id, name=checked_name(name), slug=slug)
    await audit.insert_entry(conn, account_id, actor, "account.created", subject=slug)
    environment = await create_environment(conn, sealer, account_id, actor, name="Production", kind="production")
    return accounts.Account(account_id, checked_name(name), slug), environment


async def create_environment(
    conn: Connection, sealer: Sealer, account_id: AccountId, actor: Actor, *, name: str, kind: str = "custom"
) -> NewEnvironment:
    """Make an environment with an event key and a current signing key. The caller commits.

    Raises `NameTaken`, `AccountEnding`.
    """
    if await endings.find_ending(conn, account_id) is not None:
        raise AccountEnding
    scope = Scope(account_id, EnvironmentId(uuid4()))
    slug = slug_of(name)
    if not await accounts.insert_environment(conn, scope, name=checked_name(name), slug=slug, kind=kind):
        raise NameTaken
    await audit.insert_entry(
        conn, account_id, actor, "environment.created", environment_id=scope.environment_id, subject=slug
    )
    event_key = await keys.create_event_key(conn, sealer, scope, actor, kind=kind)
    signing_key = await keys.create_signing_key(conn, sealer, scope, actor, kind=kind)
    return NewEnvironment(scope, checked_name(name), slug, event_key.secret, signing_key.secret)


async def archive_environment(conn: Connection, environment: accounts.Environment, actor: Actor) -> None:
    """Put an environment away: its keys stop working within seconds, what it holds stays. Raises `EnvironmentNeeded`."""
    if environment.kind in {"production", "dev"}:
        raise EnvironmentNeeded
    await _set_archived(conn, environment, actor, is_archived=True)


async def unarchive_environment(conn: Connection, environment: accounts.Environment, actor: Actor) -> None:
    """Use an archived environment again, with the keys it had. Raises `AccountEnding`."""
    if await endings.find_ending(conn, environment.account_id) is not None:
        raise AccountEnding
    await _set_archived(conn, environment, actor, is_archived=False)


def checked_name(name: str) -> str:
    """The name without spaces around it. Raises `NameInvalid`."""
    text = " ".join(name.split())
    if not 1 <= len(text) <= 100 or len(text.encode(errors="replace")) > 100 or not text.isprintable():
        raise NameInvalid
    return text


def slug_of(name: str) -> str:
    """The name as it stands in addresses: lower-case letters, digits and single hyphens. Raises `NameInvalid`."""
    plain = unicodedata.normalize("NFKD", checked_name(name)).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_SLUG_CHARS].strip("-")
    if slug in _NOT_SLUGS:
        return f"{slug}-1"
    return slug or f"x-{uuid4().hex[:8]}"


async def _set_archived(
    conn: Connection, environment: accounts.Environment, actor: Actor, *, is_archived: bool
) -> None:
    if not await accounts.set_archived(conn, environment.scope, is_archived=is_archived):
        return
    await accounts.bump_catalogue(conn, environment.scope)
    await audit.insert_entry(
        conn,
        environment.account_id,
        actor,
        "environment.archived" if is_archived else "environment.unarchived",
        environment_id=environment.id,
        subject=environment.slug,
    )
