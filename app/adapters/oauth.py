"""The one door to login providers: OpenID Connect by discovery, and GitHub, which is plain OAuth 2.

    departure()  → where to send the browser, and what its return must fit
    profile()    ← the code it came back with: tokens fetched, checked, read

What it guarantees: everything goes through the caller's gate (own services and metadata addresses are refused, answers
bounded in size and time, no proxies from the environment); an id_token counts only with a signature of the provider's
published keys under one of `ALGORITHMS`, the issuer, the audience and the nonce it must have, and within its time.
A key nobody has seen has the published keys fetched anew, once. What it does not do: decide who that person is here.

authlib makes the address and fetches the token, joserfc reads it. Both are loaded only where a provider is configured.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Never

import httpx2
import msgspec
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwk, jwt
from joserfc.errors import InvalidKeyIdError, JoseError

from app.adapters.http import Caller, CallFailed
from app.adapters.outgoing import Outgoing
from app.domain.addresses import gate_around
from app.domain.providers import (
    GITHUB,
    AnswerRefused,
    Departure,
    Profile,
    Provider,
    ProviderDown,
    clean_name,
    is_fit_url,
    trusted_email,
    trusted_github_email,
)

#: What an id_token may be signed with: no `none`, and nothing where our secret would be the key.
ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
#: Seconds one call may take, and bytes of its answer; the largest published key sets have some 20 KB.
CALL_S, MOST_BYTES = 5.0, 256 * 1024
#: Seconds that metadata and keys are believed, and that a provider is left alone after it failed.
FRESH_S, ALONE_S = 3600.0, 3.0
#: Seconds between fetching keys anew for tokens of unknown ones.
ROTATION_S = 5.0
#: Seconds that clocks may differ.
LEEWAY_S = 60
#: Seconds since the person proved themselves, when they were asked to do it anew.
ANEW_S = 300
_LONGEST_SUBJECT = 255
_HEADERS: Final = {"accept": "application/json", "user-agent": "stepwell"}


class _Metadata(msgspec.Struct):
    """What we read of a discovery document."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    authorization_response_iss_parameter_supported: bool = False
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Remembered:
    """What is known of one provider, and since when (monotonic seconds)."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.metadata: _Metadata | None = None
        self.keys: jwk.KeySet | None = None
        self.metadata_at = self.keys_at = self.failed_at = -1e9


class OAuth:
    """All providers of this installation. `caller` is their own, with a gate for what an operator may name."""

    def __init__(
        self, providers: tuple[Provider, ...], caller: Caller, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is called yet: a provider that is down stops nobody from starting."""
        self._caller = caller
        self._clock = clock
        self._known = {provider.key: _Remembered() for provider in providers}

    async def departure(self, provider: Provider, redirect_uri: str, *, anew: bool = False) -> Departure:
        """Where to send a browser; `anew`: the person shall prove themselves whatever they have there. Raises `ProviderDown`."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        more: dict[str, Any] = {}
        if provider.kind == "github":
            endpoint, scope = f"{provider.issuer}/login/oauth/authorize", "read:user user:email"
        else:
            endpoint, scope = (await self._metadata(provider)).authorization_endpoint, "openid email profile"
            more = {"nonce": nonce}
            if anew:
                more |= {"prompt": "login", "max_age": "0"}
        async with self._client(provider, redirect_uri, scope) as client:
            url, _ = client.create_authorization_url(endpoint, state=state, code_verifier=verifier, **more)
        return Departure(str(url), state, nonce, verifier)

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
        """Who came back with `code`; `issuer` is what the return said of it (RFC 9207).

        Raises `ProviderDown` and `AnswerRefused`.
        """
        if provider.kind == "github":
            token = await self._token(provider, redirect_uri, left, code, f"{provider.issuer}/login/oauth/access_token")
            return await self._of_github(provider, token)
        metadata = await self._metadata(provider)
        if issuer != provider.issuer and (
            issuer is not None or metadata.authorization_response_iss_parameter_supported
        ):
            _refuse("issuer_invalid", "The answer comes from another issuer than the one that was asked.")
        token = await self._token(provider, redirect_uri, left, code, metadata.token_endpoint)
        raw = token.get("id_token")
        if not isinstance(raw, str):
            _refuse("token_invalid", "The provider gave no token that says who signed in.")
        claims = await self._claims(provider, metadata, raw, left.nonce)
        subject = claims["sub"]
        if "email" not in claims and metadata.userinfo_endpoint:
            more = await self._json(provider, metadata.userinfo_endpoint, token)
            if not isinstance(more, dict) or more.get("sub") != subject:
                _refuse("token_invalid", "The provider tells about another person than the one who signed in.")
            claims = {**more, **claims}
        at = claims.get("auth_time")
        if anew and not (isinstance(at, int) and abs(time.time() - at) <= ANEW_S):
            raise AnswerRefused("not_proven_anew", f"{provider.label} does not say that you signed in there just now.")
        return Profile(
            provider.issuer,
            subject,
            trusted_email(claims),
            clean_name(claims.get("name")),
            datetime.fromtimestamp(at, UTC) if isinstance(at, int) and 0 < at < 2**33 else None,
        )

    async def close(self) -> None:
        """Give up all connections."""
        await self._caller.close()

    # ------------------------------------------------------------ tokens

    async def _token(
        self, provider: Provider, redirect_uri: str, left: Departure, code: str, endpoint: str
    ) -> Mapping[str, Any]:
        async with self._client(provider, redirect_uri, "") as client:
            try:
                found = await client.fetch_token(
                    endpoint,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=left.verifier,
                    redirect_uri=redirect_uri,
                    headers={**_HEADERS, "content-type": "application/x-www-form-urlencoded;charset=UTF-8"},
                )
            except httpx2.HTTPError as error:
                raise ProviderDown from error
            except (AuthlibBaseError, ValueError, TypeError, AttributeError) as error:
                # An error of the protocol, or an answer that is no token at all.
                raise AnswerRefused(
                    "provider_refused", "The provider did not accept the sign-in. Start again from the login page."
                ) from error
        if not isinstance(found, dict):
            _refuse("provider_refused", "The provider gave no token.")
        return found

    async def _claims(self, provider: Provider, metadata: _Metadata, raw: str, nonce: str) -> dict[str, Any]:
        """The claims of an id_token, checked."""
        try:
            try:
                claims = _read(raw, await self._keys(provider, metadata))
            except InvalidKeyIdError:
                claims = _read(raw, await self._keys(provider, metadata, rotated=True))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise AnswerRefused("token_invalid", "The provider's token is not signed as it must be.") from error
        if claims.get("iss") != provider.issuer:
            _refuse("issuer_invalid", "The provider's token is of another issuer.")
        audience = claims.get("aud")
        audience = [audience] if isinstance(audience, str) else audience
        is_ours = isinstance(audience, list) and provider.client_id in audience
        # With several audiences the token must say for whom it was made.
        party = claims.get("azp", provider.client_id if audience == [provider.client_id] else None)
        if not is_ours or party != provider.client_id:
            _refuse("token_invalid", "The provider's token is meant for somebody else.")
        now = time.time()
        if not _is_time(claims.get("exp")) or claims["exp"] <= now - LEEWAY_S:
            _refuse("token_invalid", "The provider's token has expired.")
        for name in ("iat", "nbf"):
            if (name in claims or name == "iat") and not (
                _is_time(claims.get(name)) and claims[name] <= now + LEEWAY_S
            ):
                _refuse("token_invalid", "The provider's token is not of this time.")
        given = claims.get("nonce")
        if not isinstance(given, str) or not secrets.compare_digest(given.encode(), nonce.encode()):
            _refuse("nonce_invalid", "The provider's token belongs to another sign-in.")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            _refuse("token_invalid", "The provider's token names nobody.")
        return claims

    async def _of_github(self, provider: Provider, token: Mapping[str, Any]) -> Profile:
        api = "https://api.github.com" if provider.issuer == GITHUB else f"{provider.issuer}/api/v3"
        person = await self._json(provider, f"{api}/user", token)
        number = person.get("id") if isinstance(person, dict) else None
        if not isinstance(number, int) or isinstance(number, bool):
            _refuse("token_invalid", "The provider names nobody.")
        emails = await self._json(provider, f"{api}/user/emails", token)
        # The number stays when somebody changes their login name, which another may then take.
        return Profile(
            provider.issuer,
            str(number),
            trusted_github_email(emails if isinstance(emails, list) else []),
            clean_name(person.get("name")),
        )

    # ------------------------------------------------------------ documents

    async def _metadata(self, provider: Provider) -> _Metadata:
        known = self._known[provider.key]
        async with known.lock:
            if known.metadata is None or self._clock() - known.metadata_at > FRESH_S:
                known.metadata = await self._discover(provider, known)
                known.metadata_at = self._clock()
            return known.metadata

    async def _discover(self, provider: Provider, known: _Remembered) -> _Metadata:
        url = f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            metadata = msgspec.convert(await self._document(url, known), _Metadata)
        except msgspec.ValidationError as error:
            raise ProviderDown from error
        if metadata.issuer != provider.issuer:
            _refuse("issuer_invalid", "The provider calls itself by another issuer than the one that is set here.")
        allows = provider.issuer.startswith("http://")
        addresses = [metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri]
        addresses += [metadata.userinfo_endpoint] if metadata.userinfo_endpoint else []
        if not all(is_fit_url(address, allows_loopback=allows) for address in addresses):
            raise ProviderDown
        return metadata

    async def _keys(self, provider: Provider, metadata: _Metadata, *, rotated: bool = False) -> jwk.KeySet:
        known = self._known[provider.key]
        async with known.lock:
            age = self._clock() - known.keys_at
            if known.keys is None or age > (ROTATION_S if rotated else FRESH_S):
                known.keys = _key_set(await self._document(metadata.jwks_uri, known))
                known.keys_at = self._clock()
            return known.keys

    async def _document(self, url: str, known: _Remembered) -> object:
        """A published document. One that was not to be had is not asked for again for a moment."""
        if self._clock() - known.failed_at < ALONE_S:
            raise ProviderDown
        try:
            return await self._get(url, _HEADERS)
        except ProviderDown:
            known.failed_at = self._clock()
            raise

    async def _json(self, provider: Provider, url: str, token: Mapping[str, Any]) -> Any:
        """What the provider tells the bearer of a fresh token."""
        bearer = token.get("access_token")
        if not isinstance(bearer, str) or not bearer.isascii() or not bearer.isprintable():
            _refuse("provider_refused", f"{provider.label} gave no token.")
        return await self._get(url, {**_HEADERS, "authorization": f"Bearer {bearer}"})

    async def _get(self, url: str, headers: Mapping[str, str]) -> object:
        try:
            answer = await self._caller.call(
                "GET", url, headers=headers, body=b"", timeout_s=CALL_S, max_body=MOST_BYTES
            )
            if answer.status != 200:
                raise ProviderDown
            return msgspec.json.decode(answer.body)
        except (CallFailed, msgspec.DecodeError) as error:
            raise ProviderDown from error

    def _client(self, provider: Provider, redirect_uri: str, scope: str) -> Any:
        known = self._known[provider.key].metadata
        methods = known.token_endpoint_auth_methods_supported if known else ("client_secret_post",)
        method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        return AsyncOAuth2Client(
            client_id=provider.client_id,
            client_secret=provider.client_secret or None,
            token_endpoint_auth_method=method if provider.client_secret else "none",
            redirect_uri=redirect_uri,
            scope=scope,
            code_challenge_method="S256",
            transport=_Gated(self._caller),
            trust_env=False,
            follow_redirects=False,
        )


def door_to(
    providers: tuple[Provider, ...], *, listens_at: tuple[str, int], services: tuple[str, ...], is_hosted: bool
) -> OAuth:
    """The door of a process that listens at (host, port) and uses these services by URL: no provider leads to them.

    Operators choose providers, and may have one in their own network; the hosted service has none of that.
    """
    return OAuth(
        providers, Outgoing(gate_around(listens_at=listens_at, services=services, allow_private=not is_hosted))
    )


class _Gated(httpx2.AsyncBaseTransport):
    """Takes authlib's requests to our caller, which judges where they go and how much comes back."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Make one request."""
        body = await request.aread()
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        try:
            answer = await self._caller.call(
                request.method, str(request.url), headers=headers, body=body, timeout_s=CALL_S, max_body=MOST_BYTES
            )
        except CallFailed as failed:
            raise httpx2.ConnectError(failed.kind, request=request) from failed
        kind = answer.headers.get("content-type", "application/octet-stream")
        if answer.status >= 500:
            raise httpx2.ConnectError("The provider is not well.", request=request)
        return httpx2.Response(answer.status, headers={"content-type": kind}, content=answer.body, request=request)


_HOP_BY_HOP: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})


def _read(raw: str, keys: jwk.KeySet) -> dict[str, Any]:
    return dict(jwt.decode(raw, keys, algorithms=list(ALGORITHMS)).claims)


def _key_set(document: object) -> jwk.KeySet:
    """The keys of a document that we can use; one of an unknown kind does not spoil the others."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ProviderDown
    usable = []
    for one in listed[:100]:
        try:
            # Keys shared in secret have no place in a published set, and must never check a signature.
            if isinstance(one, dict) and one.get("kty") in ("RSA", "EC", "OKP") and one.get("use", "sig") == "sig":
                usable.append(jwk.import_key(one))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    if not usable:
        raise ProviderDown
    return jwk.KeySet(usable)


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse(code: str, sentence: str) -> Never:
    raise AnswerRefused(code, f"{sentence} Start again from the login page.")
