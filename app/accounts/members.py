"""Who is in an organization: invite, join, change roles, leave.

    owner    everything, owners and deletion included      member   runs, keys to read, settings of functions
    admin    everything but owners and deletion            viewer   looks

An organization always keeps an owner. Roles are looked at under a lock, so two owners cannot take each other out.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from app.accounts import letters, outbox
from app.accounts.bootstrap import checked_email
from app.accounts.passwords import PasswordRefused, Passwords, check_password
from app.accounts.recovery import LinkOver, hash_of_token, new_token
from app.adapters.sealing import Sealer
from app.domain.errors import Refused
from app.domain.ids import AccountId, UserId
from app.domain.providers import Profile
from app.store import accounts, audit, identities, members
from app.store.audit import Actor
from app.store.db import Connection, Pool
from app.store.members import Invitation

ROLES = ("viewer", "member", "admin", "owner")
LASTS = timedelta(days=7)
"""Life of an invitation."""
MOST_INVITATIONS = 100


class RoleInvalid(Refused):
    """Choose one of the roles owner, admin, member and viewer, and none above your own."""

    def __init__(self) -> None:
        super().__init__("role_invalid")


class LastOwner(Refused):
    """An organization needs an owner. Make somebody else an owner first."""

    def __init__(self) -> None:
        super().__init__("last_owner")


class MemberUnknown(Refused):
    """There is no such person in this organization."""

    def __init__(self) -> None:
        super().__init__("not_found")


class MemberAlready(Refused):
    """Somebody with this address is in the organization already."""

    def __init__(self) -> None:
        super().__init__("member_already")


class TooManyInvitations(Refused):
    """There are as many open invitations as allowed. Take some back first."""

    def __init__(self) -> None:
        super().__init__("too_many_invitations", details={"limit": MOST_INVITATIONS})


class InvitationOver(Refused):
    """The invitation was used, taken back, or it is older than seven days. Ask for a new one."""

    def __init__(self) -> None:
        super().__init__("invitation_over")


@dataclass(frozen=True, slots=True)
class Joined:
    """The person is in: `user_id` and the account they joined."""

    user_id: UserId
    email: str
    account_id: AccountId


@dataclass(frozen=True, slots=True)
class SignInFirst:
    """The invited address has an account: only its owner may join with it."""


@dataclass(frozen=True, slots=True)
class BadPassword:
    """The password for the new account cannot be used: `sentence` says why."""

    sentence: str


class _TakenMeanwhile(Exception):
    """Somebody else used the invitation up: undo what was begun."""


async def invite(
    conn: Connection,
    sealer: Sealer,
    base_url: str,
    account: accounts.Account,
    actor: Actor,
    *,
    email: str,
    role: str,
    inviter_role: str,
    sends_mail: bool,
) -> str:
    """Invite an address and give the link, which is mailed, too, where there is mail. The caller commits.

    Raises `EmailInvalid`, `RoleInvalid`, `MemberAlready`, `TooManyInvitations`.
    """
    email = checked_email(email)
    _check_reach(inviter_role, role)
    if any(member.email.lower() == email.lower() for member in await members.list_members(conn, account.id)):
        raise MemberAlready
    if await members.count_invitations(conn, account.id) >= MOST_INVITATIONS:
        raise TooManyInvitations
    token = new_token()
    await members.put_invitation(
        conn,
        account.id,
        uuid4(),
        email=email,
        role=role,
        token_hash=hash_of_token(token),
        invited_by=actor.user_id,
        lasts=LASTS,
    )
    await audit.insert_entry(conn, account.id, actor, "member.invited", subject=email, detail={"role": role})
    if sends_mail:
        letter = letters.invitation(email, base_url, token, organization=account.name, inviter=actor.label, role=role)
        await outbox.put(conn, sealer, letter, "invitation")
    return f"{base_url}/invite/{token}"


async def take_back(conn: Connection, account_id: AccountId, actor: Actor, invitation_id: UUID) -> None:
    """End an invitation. Raises `MemberUnknown`."""
    email = await members.delete_invitation(conn, account_id, invitation_id)
    if email is None:
        raise MemberUnknown
    await audit.insert_entry(conn, account_id, actor, "member.uninvited", subject=email)


async def find_invitation(pool: Pool, token: str) -> tuple[Invitation, bool] | None:
    """The invitation behind a link, and whether its address has an account. Needs the engine role."""
    async with pool.acquire(timeout=2) as conn:
        invitation = await members.find_invitation(conn, hash_of_token(token))
        if invitation is None:
            return None
        return invitation, await accounts.find_user_by_email(conn, invitation.email) is not None


async def join(
    pool: Pool,
    passwords: Passwords,
    *,
    token: str,
    who: UserId | None,
    name: str,
    password: str,
    network: str,
) -> Joined | LinkOver | SignInFirst | BadPassword:
    """Accept an invitation: as `who`, if they are signed in and it is theirs, else as a new person.

    The link proves the address. Needs the engine role.
    """
    found = await find_invitation(pool, token)
    if found is None:
        return LinkOver()
    invitation, is_known = found
    hashed = ""
    if not is_known:
        try:
            check_password(password, email=invitation.email)
        except PasswordRefused as refused:
            return BadPassword(refused.message if password else "Enter a password of at least 12 characters.")
        hashed = await passwords.hash(password)
    try:
        return await _join(pool, token, invitation, who=who, name=name, hashed=hashed, network=network)
    except _TakenMeanwhile:
        return LinkOver()


async def join_by_provider(pool: Pool, *, token: str, profile: Profile, network: str) -> Joined | None:
    """Accept an invitation as a new person without a password; none when it is over, or somebody came first.

    The caller has seen that the provider vouches for the invited address. Needs the engine role.
    """
    found = await find_invitation(pool, token)
    if found is None:
        return None
    try:
        joined = await _join(
            pool, token, found[0], who=None, name=profile.name, hashed=None, network=network, profile=profile
        )
    except _TakenMeanwhile:
        return None
    return joined if isinstance(joined, Joined) else None


async def _join(
    pool: Pool,
    token: str,
    invitation: Invitation,
    *,
    who: UserId | None,
    name: str,
    hashed: str | None,
    network: str,
    profile: Profile | None = None,
) -> Joined | SignInFirst:
    """Person, membership and the end of the invitation, all or nothing. Raises `_TakenMeanwhile`."""
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        user = await accounts.find_user_by_email(conn, invitation.email)
        if user is not None and user.id != who:
            return SignInFirst()
        user_id = user.id if user is not None else UserId(uuid4())
        if user is None and not await accounts.insert_user(
            conn, user_id, email=invitation.email, name=name, password_hash=hashed, verified=True
        ):
            return SignInFirst()  # Somebody made an account with this address a moment ago.
        if profile is not None and not await identities.insert_identity(
            conn, user_id, issuer=profile.issuer, subject=profile.subject, email=profile.email
        ):
            raise _TakenMeanwhile
        used = await members.use_invitation(conn, hash_of_token(token))
        if used is None:
            raise _TakenMeanwhile
        await accounts.insert_membership(conn, used.account_id, user_id, role=used.role)
        actor = Actor(used.email, user_id, network)
        await audit.insert_entry(
            conn, used.account_id, actor, "member.joined", subject=str(user_id), detail={"role": used.role}
        )
    return Joined(user_id, invitation.email, invitation.account_id)


async def change_role(
    conn: Connection, account_id: AccountId, actor: Actor, user_id: UserId, role: str, *, own_role: str
) -> None:
    """Give a member another role. Raises `RoleInvalid`, `MemberUnknown`, `LastOwner`. The caller commits."""
    roles = await members.lock_roles(conn, account_id)
    _check_reach(own_role, role)
    if user_id not in roles:
        raise MemberUnknown
    _check_reach(own_role, roles[user_id])
    if roles[user_id] == role:
        return
    _keep_an_owner(roles, user_id, role)
    await members.set_role(conn, account_id, user_id, role)
    await audit.insert_entry(
        conn,
        account_id,
        actor,
        "member.role_changed",
        subject=str(user_id),
        detail={"from": roles[user_id], "to": role},
    )


async def remove(conn: Connection, account_id: AccountId, actor: Actor, user_id: UserId, *, own_role: str) -> None:
    """Take a member out (or leave); what they made stays. Raises `RoleInvalid`, `MemberUnknown`, `LastOwner`."""
    roles = await members.lock_roles(conn, account_id)
    if user_id not in roles:
        raise MemberUnknown
    if user_id != actor.user_id:
        _check_reach(own_role, roles[user_id])
    _keep_an_owner(roles, user_id, None)
    # Written first: who leaves may not write to the log of an account they are no longer in.
    action = "member.left" if user_id == actor.user_id else "member.removed"
    await audit.insert_entry(conn, account_id, actor, action, subject=str(user_id))
    await members.delete_membership(conn, account_id, user_id)


def _check_reach(own: str, role: str) -> None:
    """Nobody gives or takes a role above their own, and roles are for admins to give."""
    if role not in ROLES or own not in ("admin", "owner") or ROLES.index(role) > ROLES.index(own):
        raise RoleInvalid


def _keep_an_owner(roles: dict[UserId, str], user_id: UserId, role: str | None) -> None:
    if role != "owner" and [one for one, has in roles.items() if has == "owner"] == [user_id]:
        raise LastOwner
