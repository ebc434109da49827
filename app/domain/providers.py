"""Who else may say who somebody is: login providers as an operator names them, and what they tell about a person.

Pure: the list is read from text here, and addresses are judged; `app.adapters.oauth` talks to them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Final, Literal
from urllib.parse import urlsplit

from app.domain.errors import Outside, Refused

Kind = Literal["openid", "github"]

GITHUB: Final = "https://github.com"
#: Most providers on one page, and the longest text of a field in characters.
MOST, LONGEST = 8, 512
#: Issuer (or the beginning of it, with a slash at the end) → key, label. What is not here needs a label.
_PRESETS: Final = {
    "https://accounts.google.com": ("google", "Google"),
    "https://gitlab.com": ("gitlab", "GitLab"),
    GITHUB: ("github", "GitHub"),
    "https://login.microsoftonline.com/": ("microsoft", "Microsoft"),
}
_ICONS: Final = ("google", "gitlab", "github", "microsoft")
_LONGEST_LABEL: Final = 40
_KEY = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


class ProvidersInvalid(ValueError):
    """The list cannot be used: the message says which entry and why, and holds no value of it."""


class ProviderDown(Outside):
    """The sign-in provider does not answer as it should just now. Sign in with your password, or try again later."""

    def __init__(self) -> None:
        super().__init__(retryable=True, code="provider_down")


class AnswerRefused(Refused):
    """What the provider answered cannot be trusted. Start again from the login page.

    Codes: `provider_refused` (it gave an error, or no token), `token_invalid` (signature, audience, algorithm, time),
    `nonce_invalid`, `issuer_invalid`, `not_proven_anew`.
    """


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. `key` stands in addresses; `issuer` is exactly what its tokens say."""

    key: str
    kind: Kind
    label: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)

    @property
    def icon(self) -> str:
        """The icon on its button: a mark we have, or a shield."""
        named = f"{self.key} {self.label.lower()}"
        return next((name for name in _ICONS if name in named), "shield")

    @property
    def can_prove_again(self) -> bool:
        """Whether it can be asked to look at the person anew; plain OAuth 2 has no word for that."""
        return self.kind == "openid"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a provider says about whoever signed in there. Issuer and subject are the identity; the rest may change.

    `email` is empty unless the provider vouches for it. `signed_in_at` is when they last proved themselves there.
    """

    issuer: str
    subject: str
    email: str
    name: str = ""
    signed_in_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Departure:
    """A browser about to leave for `url`, which is shown to it. The rest its return must fit, and is never shown."""

    url: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


_FIELDS: Final = ("issuer", "client_id", "client_secret", "label", "key", "kind")


def parse_providers(text: str, *, allows_loopback: bool) -> tuple[Provider, ...]:
    """Read the JSON list of a setting. `allows_loopback`: issuers on this machine may go without TLS.

    Raises `ProvidersInvalid`.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        raise ProvidersInvalid("text that is not JSON") from None
    if not isinstance(entries, list):
        raise ProvidersInvalid("JSON that is not a list")
    if len(entries) > MOST:
        raise ProvidersInvalid(f"more than {MOST} providers")
    providers = [_provider(entry, number, allows_loopback) for number, entry in enumerate(entries, 1)]
    for name in ("key", "issuer"):
        values = [getattr(provider, name) for provider in providers]
        if len(set(values)) != len(values):
            raise ProvidersInvalid(f"two providers with the same {name}")
    return tuple(providers)


def is_fit_url(url: str, *, allows_loopback: bool) -> bool:
    """Whether a provider may be spoken to at this address: over TLS, or on this machine where that is allowed."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if (
        not parts.hostname
        or parts.username
        or parts.password
        or parts.fragment
        or not (url.isascii() and url.isprintable())
        or " " in url
    ):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and allows_loopback and is_loopback(parts.hostname))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def trusted_email(claims: dict[str, object]) -> str:
    """The address of OpenID claims if the provider says that it has verified it, else empty."""
    email, verified = claims.get("email"), claims.get("email_verified")
    # A few providers write the flag as text.
    if not isinstance(email, str) or not (verified is True or verified == "true"):
        return ""
    return clean_email(email)


def trusted_github_email(entries: Sequence[object]) -> str:
    """The verified primary address of `/user/emails`, else the first verified one, else empty."""
    verified = [
        e for e in entries if isinstance(e, dict) and e.get("verified") is True and isinstance(e.get("email"), str)
    ]
    verified.sort(key=lambda entry: entry.get("primary") is not True)
    return next((clean for entry in verified if (clean := clean_email(str(entry["email"])))), "")


def clean_email(text: str) -> str:
    """An address as we can store it, else empty."""
    text = text.strip()
    local, _, domain = text.rpartition("@")
    fits = local and domain and text.isprintable() and " " not in text and len(text.encode(errors="replace")) <= 320
    return text if fits else ""


def clean_name(value: object) -> str:
    """A name in one line of at most 100 characters; anything odd is no name."""
    name = " ".join(value.split())[:100] if isinstance(value, str) else ""
    return name if name.isprintable() else ""


def _provider(entry: object, number: int, allows_loopback: bool) -> Provider:
    where = f"provider {number}"
    given = _texts(entry, where)
    issuer, client_id, client_secret = given["issuer"], given["client_id"], given["client_secret"]
    if not is_fit_url(issuer, allows_loopback=allows_loopback) or "?" in issuer:
        raise ProvidersInvalid(f"{where} whose issuer is not an https:// address")
    preset = next((found for known, found in _PRESETS.items() if _is_of(issuer, known)), ("", ""))
    kind = given["kind"] or ("github" if issuer.rstrip("/") == GITHUB else "openid")
    if kind not in ("openid", "github"):
        raise ProvidersInvalid(f"{where} of a kind other than openid and github")
    label = " ".join((given["label"] or preset[1]).split())
    if not label or len(label) > _LONGEST_LABEL:
        raise ProvidersInvalid(f"{where} without a label of 1 to {_LONGEST_LABEL} characters")
    key = given["key"] or preset[0] or re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    if not _KEY.fullmatch(key):
        raise ProvidersInvalid(f"{where} without a key of 1 to 40 lower-case letters, digits and hyphens")
    if not client_id:
        raise ProvidersInvalid(f"{where} without client_id")
    if kind == "github":
        if not client_secret:
            raise ProvidersInvalid(f"{where} without client_secret")
        return Provider(key, "github", label, issuer.rstrip("/"), client_id, client_secret)
    return Provider(key, "openid", label, issuer, client_id, client_secret)


def _texts(entry: object, where: str) -> dict[str, str]:
    """The fields of an entry, empty where they are missing."""
    if not isinstance(entry, dict):
        raise ProvidersInvalid(f"{where} that is not an object")
    if odd := [name for name in entry if name not in _FIELDS]:
        raise ProvidersInvalid(f"{where} with {len(odd)} unknown field{'s' if len(odd) > 1 else ''}")
    found = {}
    for name in _FIELDS:
        value = entry.get(name, "")
        if not isinstance(value, str) or len(value) > LONGEST or not value.isprintable() or value != value.strip():
            raise ProvidersInvalid(f"{where} with a {name} that cannot be one")
        found[name] = value
    return found


def _is_of(issuer: str, known: str) -> bool:
    return issuer.startswith(known) if known.endswith("/") else issuer.rstrip("/") == known
