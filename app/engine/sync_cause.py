"""Why a sync failed, as exactly as one more question to the app can tell, and what to do about it.

A sync that fails knows only its own answer. The app's introspection (protocol 9.1: a signed GET that runs nothing) and
the headers of that answer tell a wrong mode from a wrong key from a wrong clock.
"""

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from app.adapters.http import Answer, Caller, CallFailed, parse_url
from app.domain.limits import SIGNATURE_WINDOW
from app.engine.probes import introspect, said_in
from app.engine.sync import SyncFailed

_PATIENCE_S = 5.0
#: The oldest lines of each SDK whose calls our protocol tests cover.
_OLDEST = {"js": (3, 0), "py": (0, 5), "go": (0, 14)}
_SDK = re.compile(r"(?:inngest-)?(js|py|go):v(\d+)\.(\d+)")
_CALL_FIXES = {
    "app_unreachable": "Start the app, check host and port of the URL, and that Stepwell may get there: an app on your laptop needs a tunnel unless Stepwell runs there too.",
    "app_timeout": "The app accepts connections but does not answer. Check that it is not stopped in a debugger, and that no proxy in front of it waits.",
    "app_tls_failed": "Check that the certificate is valid for this host name and has not expired, or use http:// inside your own network.",
    "app_address_blocked": "Private and internal addresses are not called from here. Give a public URL or a tunnel's; whoever runs this installation may set STEPWELL_ALLOW_PRIVATE_APPS=1.",
    "app_redirect_blocked": "Give the address that the redirect leads to: often https:// instead of http://, or without a slash at the end.",
    "app_response_too_large": "Check that the URL is the one where the SDK is served, and not a page or a file.",
    "app_url_invalid": "Write the whole URL, such as https://shop.example.com/api/inngest: http:// or https:// in front, no user name; port 80, 443 or one from 1024 on.",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """What to show: `code` is stable; `title`, `what` and `fix` are sentences for people."""

    code: str
    title: str
    what: str
    fix: str


async def find_cause(
    caller: Caller, url: str, failed: SyncFailed, *, keys: list[str], server_kind: str, base_url: str
) -> Cause:
    """Ask the app once more and judge. Never raises for anything the app does."""
    if failed.code == "http_unreachable":
        kind = str(failed.details.get("kind", ""))
        if kind == "app_url_invalid" and _is_only_plain(url):
            return _PLAIN
        titles = {
            "app_address_blocked": "This address may not be called",
            "app_url_invalid": "This URL cannot be called",
        }
        return Cause(
            "unreachable",
            titles.get(kind, "The app cannot be reached"),
            failed.message,
            _CALL_FIXES.get(kind, failed.fix),
        )
    if failed.details.get("status") == 404:
        return Cause(
            "not_found",
            "There is nothing at this path",
            "The server answered 404: it is there, and the SDK is not at this path.",
            "SDKs are served at /api/inngest unless the code says otherwise. Check the path, and that the new code is deployed.",
        )
    if failed.code == "not_sdk":
        return Cause("not_sdk", "No SDK answered", failed.message, failed.fix)
    if failed.code not in {"sig_verification_failed", "http_not_ok"}:
        return Cause(failed.code, "A function's settings are not accepted", failed.message, failed.fix)
    return _judge(await _look(caller, url, keys, server_kind), failed, keys, server_kind, base_url)


_PLAIN = Cause(
    "plain_http",
    "Only https:// is called from here",
    "The URL begins with http://, and this installation calls apps over TLS only.",
    "Give the app's https:// URL, or a tunnel's. If the app runs on this machine or inside your network, whoever runs this installation sets STEPWELL_ALLOW_PRIVATE_APPS=1, which admits http:// and private addresses, and starts Stepwell again.",
)


def _is_only_plain(url: str) -> bool:
    """Whether there is nothing wrong with a URL but its missing TLS."""
    try:
        return parse_url(url, allow_plain=True).scheme == "http"
    except CallFailed:
        return False


async def _look(caller: Caller, url: str, keys: list[str], server_kind: str) -> Answer | None:
    try:
        return (await introspect(caller, url, keys, server_kind, _PATIENCE_S))[0]
    except CallFailed:
        return None


def _judge(answer: Answer | None, failed: SyncFailed, keys: list[str], server_kind: str, base_url: str) -> Cause:
    if answer is None:
        return Cause(failed.code, "The sync failed", failed.message, failed.fix)
    said = said_in(answer.body)
    is_refused = answer.status in (401, 403)
    mode = str(said.get("mode", "")) or ("cloud" if is_refused else "")
    if server_kind == "cloud" and mode == "dev":
        return Cause(
            "wrong_mode",
            "The app is in development mode",
            "It neither checks nor makes signatures, so its answer cannot be trusted.",
            "Set INNGEST_DEV=0 (in Go remove INNGEST_DEV), set the two keys of step 1, and start the app again.",
        )
    if server_kind == "dev" and mode == "cloud":
        return Cause(
            "wrong_mode",
            "The app is in production mode",
            "It wants signed calls, and the development server signs nothing.",
            f"Set INNGEST_DEV={base_url} and start the app again.",
        )
    skew = _skew(answer)
    if is_refused and skew is not None and abs(skew) > SIGNATURE_WINDOW.total_seconds():
        minutes = round(abs(skew) / 60)
        return Cause(
            "clock",
            "The clocks differ",
            f"The app's clock is {minutes} minutes {'ahead of' if skew > 0 else 'behind'} ours, and signatures are good for five.",
            "Set the clock of the app's machine, and of Stepwell's if it is the wrong one; both should use a time service.",
        )
    if (old := _too_old(answer)) is not None:
        return Cause(
            "too_old",
            "The SDK is too old",
            f"The app uses version {old}, which is older than what Stepwell is tested with.",
            "Update the SDK to its newest version and start the app again.",
        )
    if keys and said.get("has_signing_key") is False:
        return Cause(
            "no_key",
            "The app has no signing key",
            "INNGEST_SIGNING_KEY is not set where the app runs.",
            "Set INNGEST_SIGNING_KEY to the signing key of step 1 and start the app again: programs read variables at their start.",
        )
    if keys and (is_refused or failed.code == "sig_verification_failed"):
        return Cause(
            "wrong_key",
            "The app has another signing key",
            "It refused our signature, or its own was not made with this environment's key.",
            "Copy INNGEST_SIGNING_KEY of step 1 again, and start the app again. Keys of other environments do not work here.",
        )
    return Cause(
        "no_answer",
        "The app's functions did not arrive",
        failed.message,
        f"The app reports to the address in INNGEST_BASE_URL. Set it to {base_url} and check that the app can reach it.",
    )


def _skew(answer: Answer) -> float | None:
    """Seconds by which the app's clock is ahead of ours; none when it does not say."""
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).timestamp() - time.time()
    except ValueError:
        return None


def _too_old(answer: Answer) -> str | None:
    found = _SDK.match(answer.headers.get("x-inngest-sdk", ""))
    if found is None:
        return None
    language, major, minor = found[1], int(found[2]), int(found[3])
    return f"{major}.{minor}" if (major, minor) < _OLDEST[language] else None
