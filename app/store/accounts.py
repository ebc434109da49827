"""Accounts, users, memberships and environments: who is here and what belongs to whom.

Under `stepwell_app` these functions see one account (and a person's own memberships); under `stepwell_engine` all.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.domain.ids import AccountId, EnvironmentId, UserId
from app.domain.scope import Scope
from app.store.db import Connection


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant; people read *organization*."""

    id: AccountId
    name: str
    slug: str


@dataclass(frozen=True, slots=True)
class User:
    """A person. `password_hash` is argon2 text, or none when they cannot sign in with a password."""

    id: UserId
    email: str
    name: str
    password_hash: str | None
    is_verified: bool


@dataclass(frozen=True, slots=True)
class Person:
    """What somebody's own pages show. `theme` is light, dark or empty (the system's); `time_zone` is utc or local."""

    email: str
    name: str
    password_hash: str | None
    theme: str
    time_zone: str
    has_shortcuts: bool
    password_changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Membership:
    """What one person may do in one account. `role` is owner, admin, member or viewer."""

    account_id: AccountId
    account_name: str
    account_slug: str
    role: str


@dataclass(frozen=True, slots=True)
class Environment:
    """A namespace inside an account. `kind` is production, custom, branch or dev."""

    id: EnvironmentId
    account_id: AccountId
    name: str
    slug: str
    kind: str
    catalogue_version: int
    archived_at: datetime | None

    @property
    def scope(self) -> Scope:
        """The tenant that statements about this environment work for."""
        return Scope(self.account_id, self.id)


@dataclass(frozen=True, slots=True)
class Branch:
    """What is known of a name below a branch parent; none while no environment has it."""

    environment: Environment | None


_ENVIRONMENTS = (
    "select id, account_id, name, slug, kind, catalogue_version, archived_at from environments where account_id = $1"
)


async def insert_account(conn: Connection, account_id: AccountId, *, name: str, slug: str) -> bool:
    """Add an account; false when the id or the slug is taken."""
    return bool(
        await conn.fetchval(
            "insert into accounts (id, name, slug) values ($1, $2, $3) on conflict do nothing returning true",
            account_id,
            name,
            slug,
        )
    )


async def find_account_by_slug(conn: Connection, slug: str) -> Account | None:
    """Find an account by the text that stands in its addresses."""
    row = await conn.fetchrow("select id, name, slug from accounts where slug = $1", slug)
    return row and Account(AccountId(row["id"]), row["name"], row["slug"])


async def find_plan(conn: Connection, account_id: AccountId) -> str | None:
    """The name of an account's plan."""
    plan: str | None = await conn.fetchval("select plan from accounts where id = $1", account_id)
    return plan


async def insert_user(
    conn: Connection, user_id: UserId, *, email: str, name: str, password_hash: str | None, verified: bool
) -> bool:
    """Add a person; false when the id or the address (any letter case) is taken."""
    return bool(
        await conn.fetchval(
            "insert into users (id, email, name, password_hash, verified_at, password_changed_at)"
            " values ($1, $2, $3, $4, case when $5 then clock() end, case when $4::text is not null then clock() end)"
            " on conflict do nothing returning true",
            user_id,
            email,
            name,
            password_hash,
            verified,
        )
    )


async def find_user_by_email(conn: Connection, email: str) -> User | None:
    """Find a person by address, whatever its letter case."""
    row = await conn.fetchrow(
        "select id, email, name, password_hash, verified_at is not null as is_verified"
        " from users where lower(email) = lower($1)",
        email,
    )
    if row is None:
        return None
    return User(UserId(row["id"]), row["email"], row["name"], row["password_hash"], row["is_verified"])


async def set_password_hash(conn: Connection, user_id: UserId, password_hash: str, *, is_new_password: bool) -> None:
    """Store a hash: of a new password, or of the same one under newer parameters."""
    await conn.execute(
        "update users set password_hash = $2,"
        " password_changed_at = case when $3 then clock() else password_changed_at end where id = $1",
        user_id,
        password_hash,
        is_new_password,
    )


async def find_person(conn: Connection, user_id: UserId) -> Person:
    """How a signed-in person calls themselves and likes to see the pages."""
    row = await conn.fetchrow(
        "select email, name, password_hash, theme, time_zone, has_shortcuts, password_changed_at from users where id = $1",
        user_id,
    )
    return Person(*row)


async def set_preferences(
    conn: Connection, user_id: UserId, *, name: str, theme: str, time_zone: str, has_shortcuts: bool
) -> None:
    """Change how somebody is called and sees the pages."""
    await conn.execute(
        "update users set name = $2, theme = $3, time_zone = $4, has_shortcuts = $5 where id = $1",
        user_id,
        name,
        theme,
        time_zone,
        has_shortcuts,
    )


async def set_account_name(conn: Connection, account_id: AccountId, name: str) -> bool:
    """Rename an account; false when it is called so already. Its slug stays: links point to it."""
    return bool(
        await conn.fetchval(
            "update accounts set name = $2 where id = $1 and name <> $2 returning true", account_id, name
        )
    )


async def insert_membership(conn: Connection, account_id: AccountId, user_id: UserId, *, role: str) -> bool:
    """Let a person into an account; false when they are in it already (the role stays)."""
    return bool(
        await conn.fetchval(
            "insert into memberships (account_id, user_id, role) values ($1, $2, $3)"
            " on conflict do nothing returning true",
            account_id,
            user_id,
            role,
        )
    )


async def list_memberships(conn: Connection, user_id: UserId) -> list[Membership]:
    """List the accounts a person is in, the oldest membership first. Needs `app.user` set under row-level security."""
    rows = await conn.fetch(
        "select m.account_id, m.role, a.name, a.slug from memberships m join accounts a on a.id = m.account_id"
        " where m.user_id = $1 order by m.created_at, m.account_id limit 200",
        user_id,
    )
    return [Membership(AccountId(r["account_id"]), r["name"], r["slug"], r["role"]) for r in rows]


async def insert_environment(conn: Connection, scope: Scope, *, name: str, slug: str, kind: str) -> bool:
    """Add an environment; false when the account has one of that slug or id."""
    return bool(
        await conn.fetchval(
            "insert into environments (id, account_id, name, slug, kind) values ($1, $2, $3, $4, $5)"
            " on conflict do nothing returning true",
            scope.environment_id,
            scope.account_id,
            name,
            slug,
            kind,
        )
    )


async def find_environment(conn: Connection, account_id: AccountId, slug: str) -> Environment | None:
    """Find an environment of an account by slug, archived or not."""
    row = await conn.fetchrow(_ENVIRONMENTS + " and slug = $2", account_id, slug)
    return row and _environment(row)


async def list_environments(conn: Connection, account_id: AccountId) -> list[Environment]:
    """List an account's environments, production first, then by name."""
    rows = await conn.fetch(
        _ENVIRONMENTS + " order by kind <> 'production', archived_at is not null, name, id limit 500",
        account_id,
    )
    return [_environment(row) for row in rows]


async def find_branch(conn: Connection, parent: Scope, name: str) -> Branch | None:
    """Find a branch below an environment; none when that one takes no branches."""
    row = await conn.fetchrow(
        "select e.id, p.account_id, e.name, e.slug, e.kind, e.catalogue_version, e.archived_at from environments p"
        " left join environments e on e.parent_id = p.id and e.account_id = p.account_id and e.name = $3"
        " where p.account_id = $1 and p.id = $2 and p.kind = 'branch' and p.parent_id is null",
        parent.account_id,
        parent.environment_id,
        name,
    )
    return row and Branch(_environment(row) if row["id"] is not None else None)


async def count_branches(conn: Connection, parent: Scope) -> int:
    """Hold the parent's row and count its live branches."""
    await conn.execute(
        "select from environments where account_id = $1 and id = $2 for update",
        parent.account_id,
        parent.environment_id,
    )
    count: int = await conn.fetchval(
        "select count(*) from environments where account_id = $1 and parent_id = $2 and archived_at is null",
        parent.account_id,
        parent.environment_id,
    )
    return count


async def put_branch(conn: Connection, parent: Scope, scope: Scope, *, name: str, slug: str) -> bool:
    """Add a branch, or bring it back when it is archived; false when another environment has the slug."""
    return bool(
        await conn.fetchval(
            "with back as (update environments set archived_at = null, used_at = clock() where account_id = $1 and id = $2"
            " and parent_id = $3 returning true as is_there),"
            " new as (insert into environments (id, account_id, parent_id, name, slug, kind)"
            " select $2, $1, $3, $4, $5, 'branch' where not exists (select from back)"
            " on conflict do nothing returning true as is_there)"
            " select is_there from back union all select is_there from new",
            scope.account_id,
            scope.environment_id,
            parent.environment_id,
            name,
            slug,
        )
    )


async def list_branches(conn: Connection, parent: Scope) -> list[Environment]:
    """List an environment and the branches below it, live ones first, then by name."""
    rows = await conn.fetch(
        _ENVIRONMENTS
        + " and (id = $2 or parent_id = $2) order by archived_at is not null, id <> $2, name, id limit 500",
        parent.account_id,
        parent.environment_id,
    )
    return [_environment(row) for row in rows]


async def set_archived(conn: Connection, scope: Scope, *, is_archived: bool) -> bool:
    """Put an environment away or take it back; false when it is so already. What a person took back stays."""
    return bool(
        await conn.fetchval(
            "update environments set archived_at = case when $3 then clock() end, archives_itself = $3 where account_id = $1 and id = $2"
            " and (archived_at is not null) <> $3 returning true",
            scope.account_id,
            scope.environment_id,
            is_archived,
        )
    )


async def bump_catalogue(conn: Connection, scope: Scope) -> None:
    """Tell all processes that functions, apps or keys of this environment changed. Locks the environment's row."""
    await conn.execute(
        "update environments set catalogue_version = catalogue_version + 1 where account_id = $1 and id = $2",
        scope.account_id,
        scope.environment_id,
    )


def _environment(row: Any) -> Environment:
    return Environment(
        EnvironmentId(row["id"]),
        AccountId(row["account_id"]),
        row["name"],
        row["slug"],
        row["kind"],
        row["catalogue_version"],
        row["archived_at"],
    )
