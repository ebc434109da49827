"""Sign in, sign up, join and prove oneself through a login provider.

    depart()  a browser leaves: what its return must fit is kept, bound to a cookie of that browser
    arrive()  it is back with a code: the journey is used up, the provider asked, and one of these is true

    who is that?          what for        then
    ──────────────────────────────────────────────────────────────────────────────────────────────
    an identity we know   sign in         a new session
    nobody we know        sign in         invitation → joins; address of an account → refused, the password
                                          comes first; open door → asked for a name, `found()` makes the account
    anybody               link            theirs from now on, unless it is somebody else's
    the person themselves prove           the session is proven for a moment

**An identity is (issuer, subject).** An address proves nothing about an account that is there already: whoever runs a
provider, or got hold of an old address, must not get in by it.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import uuid4

from app.accounts import letters, login, members, outbox, sign_up
from app.accounts.bootstrap import LOCK
from app.accounts.environments import create_account, slug_of
from app.accounts.provider_refusals import (
    AccountExists,
    AlreadyConnected,
    ConsentDenied,
    EmailUnverified,
    InvitationForOther,
    JourneyOver,
    LastMethod,
    LinkedElsewhere,
    NoOrganization,
    OtherPerson,
    SignUpClosed,
    TooManyJourneys,
)
from app.accounts.recovery import note_everywhere
from app.adapters.sealing import Sealer
from app.domain.ids import AccountId, UserId
from app.domain.providers import AnswerRefused, Departure, Profile, Provider
from app.store import accounts, identities, sessions
from app.store.audit import Actor
from app.store.db import Connection, Pool
from app.store.identities import Journey, Purpose

LASTS = timedelta(minutes=10)
"""How long a browser may stay at a provider, and at the question for a name afterwards."""
WINDOW = timedelta(minutes=15)
#: Journeys begun from one network within the window: an office behind one address, not a flood.
MOST_PER_NETWORK = 120
_DENIED = frozenset({"access_denied", "consent_required", "interaction_required", "login_required"})


class Asker(Protocol):
    """What is needed of the door to providers."""

    async def departure(self, provider: Provider, redirect_uri: str, *, anew: bool = False) -> Departure:
        """Where to send a browser. Raises `ProviderDown`, `AnswerRefused`."""
        ...

    async def profile(
        self,
        provider: Provider,
        redirect_uri: str,
        left: Departure,
        *,
        code: str,
        issuer: str | None,
        anew: bool = False,
    ) -> Profile:
        """Who came back. Raises `ProviderDown`, `AnswerRefused`."""
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who stands at the door. `browser` is the secret of their cookie for journeys, `session_id` of the other one."""

    browser: str
    network: str
    agent: str = ""
    who: UserId | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back with the browser, unchecked."""

    state: str
    code: str
    error: str
    issuer: str | None


@dataclass(frozen=True, slots=True)
class In:
    """Signed in, or proven anew: the browser's new session id, and where to go."""

    session_id: str
    user_id: UserId
    next_path: str


@dataclass(frozen=True, slots=True)
class NameWanted:
    """A new person: `token` finds the journey on which their organization still needs a name."""

    token: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The identity is the person's now."""

    provider: Provider


def new_browser() -> str:
    """The secret that binds journeys to a browser."""
    return secrets.token_urlsafe(32)


def redirect_uri(base_url: str, provider: Provider) -> str:
    """The one address a provider may send browsers back to; it is registered there letter by letter."""
    return f"{base_url}/login/{provider.key}/callback"


async def depart(
    pool: Pool,
    sealer: Sealer,
    asker: Asker,
    provider: Provider,
    visitor: Visitor,
    *,
    purpose: Purpose,
    base_url: str,
    next_path: str = "/",
    invitation: str = "",
) -> str:
    """Where to send the browser. No connection is held while the provider is asked. Needs the engine role.

    Raises `TooManyJourneys`, `ProviderDown`, `AnswerRefused`.
    """
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        tries = await sessions.count_try(conn, "network", _hash(f"journey\n{visitor.network}"), window=WINDOW)
    if tries.count > MOST_PER_NETWORK:
        raise TooManyJourneys(max(1, int(tries.remaining.total_seconds())))
    left = await asker.departure(provider, redirect_uri(base_url, provider), anew=purpose == "prove")
    detail = {"nonce": left.nonce, "verifier": left.verifier, "next": next_path, "invitation": invitation}
    journey = Journey(provider.key, purpose, visitor.who, outbox.seal_detail(sealer, detail))
    async with pool.acquire(timeout=2) as conn:
        await _insert(conn, journey, left.state, visitor)
    return left.url


async def arrive(
    pool: Pool,
    sealer: Sealer,
    asker: Asker,
    provider: Provider,
    visitor: Visitor,
    back: Returned,
    *,
    base_url: str,
    policy: str,
    sends_mail: bool,
) -> In | NameWanted | Connected:
    """Use the journey up and do what it was for. Needs the engine role. Raises the refusals above, and the door's."""
    async with pool.acquire(timeout=2) as conn:
        journey = await identities.use_journey(conn, _hash(back.state), _hash(visitor.browser))
    if journey is None or journey.provider != provider.key or journey.purpose == "sign_up":
        raise JourneyOver
    if journey.purpose != "sign_in" and (journey.user_id is None or journey.user_id != visitor.who):
        # Whoever began it has signed out meanwhile, or somebody else has signed in.
        raise JourneyOver
    detail = outbox.open_detail(sealer, journey.sealed)
    if back.error or not back.code:
        if back.error in _DENIED:
            raise ConsentDenied
        raise AnswerRefused("provider_refused", "The provider ended the sign-in with an error. Start again.")
    profile = await asker.profile(
        provider,
        redirect_uri(base_url, provider),
        Departure("", back.state, detail["nonce"], detail["verifier"]),
        code=back.code,
        issuer=back.issuer,
        anew=journey.purpose == "prove",
    )
    if journey.purpose == "link":
        return await _link(pool, sealer, provider, visitor, profile, base_url=base_url, sends_mail=sends_mail)
    if journey.purpose == "prove":
        return await _prove(pool, visitor, provider, profile, detail["next"])
    found = await _sign_in(pool, provider, visitor, profile, detail)
    return found or await _newcomer(pool, sealer, provider, visitor, profile, policy)


async def find_newcomer(pool: Pool, sealer: Sealer, visitor: Visitor, token: str) -> tuple[Profile, str] | None:
    """Who is about to make an account, and the key of their provider; none when that is over. Needs the engine role."""
    async with pool.acquire(timeout=2) as conn:
        journey = await identities.find_journey(conn, _hash(token), _hash(visitor.browser))
    if journey is None or journey.purpose != "sign_up":
        return None
    return _opened(sealer, journey), journey.provider


async def found(
    pool: Pool, sealer: Sealer, provider: Provider, visitor: Visitor, *, token: str, organization: str, policy: str
) -> In:
    """Make person, account, environment and keys, and sign in. Needs the engine role.

    Raises `NameInvalid`, which leaves the journey as it is, `JourneyOver`, `SignUpClosed`, `AccountExists`,
    `LinkedElsewhere`.
    """
    slug_of(organization)
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        # Two who are the first at the same moment must not both be.
        await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
        journey = await identities.use_journey(conn, _hash(token), _hash(visitor.browser))
        if journey is None or journey.purpose != "sign_up" or journey.provider != provider.key:
            raise JourneyOver
        if not await sign_up.is_open_now(conn, policy):
            raise SignUpClosed
        profile, user_id = _opened(sealer, journey), UserId(uuid4())
        actor = Actor(profile.email, user_id, visitor.network)
        if not await accounts.insert_user(
            conn, user_id, email=profile.email, name=profile.name, password_hash=None, verified=True
        ):
            raise AccountExists
        if not await _give(conn, user_id, profile):
            raise LinkedElsewhere
        account, environment = await create_account(conn, sealer, actor, organization)
        await accounts.insert_membership(conn, account.id, user_id, role="owner")
        await note_everywhere(conn, user_id, actor, "identity.linked", detail={"provider": provider.label})
        session_id = await _begin(conn, actor, account.id, visitor, provider)
        return In(session_id, user_id, f"/env/{environment.slug}/start")


async def unlink(
    conn: Connection,
    sealer: Sealer,
    configured: tuple[Provider, ...],
    provider: Provider,
    user_id: UserId,
    actor: Actor,
    *,
    base_url: str,
    sends_mail: bool,
) -> bool:
    """Disconnect a provider; false when it is not connected. Raises `LastMethod`. The caller commits."""
    mine = {identity.issuer for identity in await identities.lock_identities(conn, user_id)}
    if provider.issuer not in mine:
        return False
    others = {one.issuer for one in configured} & mine - {provider.issuer}
    person = await accounts.find_person(conn, user_id)
    if person.password_hash is None and not others:
        raise LastMethod
    await identities.delete_identity(conn, user_id, provider.issuer)
    letter = letters.method_changed(person.email, base_url, provider.label, is_new=False)
    await outbox.put(conn, sealer, letter, "method_changed", is_wanted=sends_mail)
    await note_everywhere(conn, user_id, actor, "identity.unlinked", detail={"provider": provider.label})
    return True


# ---------------------------------------------------------------- what a journey was for


async def _sign_in(
    pool: Pool, provider: Provider, visitor: Visitor, profile: Profile, detail: dict[str, str]
) -> In | None:
    """A session for an identity we know, or for the invited; none for anybody else."""
    invitation = detail["invitation"]
    async with pool.acquire(timeout=2) as conn:
        known = await identities.find_identity(conn, profile.issuer, profile.subject)
        person = None if known else await accounts.find_user_by_email(conn, profile.email)
    if known is None:
        if not invitation:
            if person is not None:
                raise AccountExists
            return None
        joined = await _join(pool, profile, invitation, visitor)
        async with pool.acquire(timeout=2) as conn, conn.transaction():
            actor = Actor(joined.email, joined.user_id, visitor.network)
            await note_everywhere(conn, joined.user_id, actor, "identity.linked", detail={"provider": provider.label})
            session_id = await _begin(conn, actor, joined.account_id, visitor, provider)
        return In(session_id, joined.user_id, "/")
    user_id, email = known
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        actor = Actor(email, user_id, visitor.network)
        home = await login.home_of(conn, user_id)
        if home is None:
            raise NoOrganization
        await identities.note_use(conn, profile.issuer, profile.subject, profile.email)
        session_id = await _begin(conn, actor, home.account_id, visitor, provider)
    return In(session_id, user_id, f"/invite/{invitation}" if invitation else detail["next"])


async def _join(pool: Pool, profile: Profile, token: str, visitor: Visitor) -> members.Joined:
    """Accept an invitation as a new person, whose address the provider vouches for."""
    found = await members.find_invitation(pool, token)
    if found is None:
        raise members.InvitationOver
    invitation, is_known = found
    if is_known:
        raise AccountExists
    if not profile.email:
        raise EmailUnverified
    if profile.email.lower() != invitation.email.lower():
        raise InvitationForOther
    joined = await members.join_by_provider(pool, token=token, profile=profile, network=visitor.network)
    if joined is None:
        raise members.InvitationOver
    return joined


async def _newcomer(
    pool: Pool, sealer: Sealer, provider: Provider, visitor: Visitor, profile: Profile, policy: str
) -> NameWanted:
    """Somebody nobody knows: may they make an account?"""
    if not await sign_up.is_open(pool, policy):
        raise SignUpClosed
    if not profile.email:
        raise EmailUnverified
    detail = {"issuer": profile.issuer, "subject": profile.subject, "email": profile.email, "name": profile.name}
    token = secrets.token_urlsafe(32)
    async with pool.acquire(timeout=2) as conn:
        journey = Journey(provider.key, "sign_up", None, outbox.seal_detail(sealer, detail))
        await _insert(conn, journey, token, visitor)
    return NameWanted(token)


async def _link(
    pool: Pool,
    sealer: Sealer,
    provider: Provider,
    visitor: Visitor,
    profile: Profile,
    *,
    base_url: str,
    sends_mail: bool,
) -> Connected:
    """Give the identity to the person who is signed in; theirs already is fine."""
    assert visitor.who is not None
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        known = await identities.find_identity(conn, profile.issuer, profile.subject)
        if known is not None:
            if known[0] != visitor.who:
                raise LinkedElsewhere
            return Connected(provider)
        if not await _give(conn, visitor.who, profile):
            raise AlreadyConnected
        person = await accounts.find_person(conn, visitor.who)
        actor = Actor(person.email, visitor.who, visitor.network)
        letter = letters.method_changed(person.email, base_url, provider.label, is_new=True)
        await outbox.put(conn, sealer, letter, "method_changed", is_wanted=sends_mail)
        await note_everywhere(conn, visitor.who, actor, "identity.linked", detail={"provider": provider.label})
    return Connected(provider)


async def _prove(pool: Pool, visitor: Visitor, provider: Provider, profile: Profile, next_path: str) -> In:
    """The session is proven, under a new id, if this is the person it belongs to."""
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        known = await identities.find_identity(conn, profile.issuer, profile.subject)
        if known is None or known[0] != visitor.who:
            raise OtherPerson
        session_id = await login.note_proof(conn, visitor.session_id or "")
        if session_id is None:
            raise JourneyOver
        actor = Actor(known[1], known[0], visitor.network)
        await note_everywhere(conn, known[0], actor, "session.proven", detail={"provider": provider.label})
    return In(session_id, known[0], next_path)


async def _begin(conn: Connection, actor: Actor, account_id: AccountId, visitor: Visitor, provider: Provider) -> str:
    return await login.begin_session(
        conn, actor, account_id, agent=visitor.agent, ended_session=visitor.session_id, provider=provider.label
    )


async def _give(conn: Connection, user_id: UserId, profile: Profile) -> bool:
    return await identities.insert_identity(
        conn, user_id, issuer=profile.issuer, subject=profile.subject, email=profile.email
    )


async def _insert(conn: Connection, journey: Journey, state: str, visitor: Visitor) -> None:
    await identities.insert_journey(
        conn, journey, state_hash=_hash(state), browser_hash=_hash(visitor.browser), lasts=LASTS
    )


def _opened(sealer: Sealer, journey: Journey) -> Profile:
    detail = outbox.open_detail(sealer, journey.sealed)
    return Profile(detail["issuer"], detail["subject"], detail["email"], detail["name"])


def _hash(text: str) -> bytes:
    return hashlib.sha256(b"journey\n" + text.encode(errors="surrogatepass")).digest()
