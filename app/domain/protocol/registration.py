"""An app's registration: the body of `POST /fn/register`, or the answer to an in-band sync (protocol 7).

Read once, leniently (letter case, nulls, old shapes), checked as a whole: either every function is fine, or nothing is
registered and the developer sees all problems. Comes from `web/api` or an app's answer, goes on to `engine/sync.py`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from app.domain import canonical
from app.domain.errors import JsonRefused, RegistrationRefused
from app.domain.limits import MAX_SLUG_CHARS
from app.domain.protocol.addresses import is_app_address, normalise_url, same_place
from app.domain.protocol.config_fields import Checks, Findings, Problem
from app.domain.protocol.function_config import FunctionConfig, placeless, read_function

_SDK = re.compile(r"([a-z-]{1,20}):v?(.{1,60})")
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
#: By language: first and last version that may not register (protocol 7.1; ts: CVE-2026-42047).
_DENIED = {"js": ((3, 22, 0), (3, 53, 1))}


@dataclass(frozen=True, slots=True)
class Registration:
    """What an app says about itself.

    `checksum` is the same for the same settings, whatever order they came in; it leaves out what the protocol says to
    ignore. `capabilities` is canonical JSON. `sdk_language` is `js`,
    `py`, `go` …; `deploy_type` is `ping` or `connect`. `environment` is only named in-band.
    """

    app_name: str
    url: str
    functions: tuple[FunctionConfig, ...]
    checksum: str
    sdk_language: str = ""
    sdk_version: str = ""
    framework: str = ""
    platform: str = ""
    app_version: str = ""
    deploy_type: str = "ping"
    environment: str | None = None
    capabilities: bytes = b"{}"
    is_in_band: bool = False
    warnings: tuple[Problem, ...] = ()


def read_registration(body: bytes, *, checks: Checks | None = None, url: str | None = None) -> Registration:
    """Read either form. `url` is what we asked for, used where the body names none.

    Raises `RegistrationRefused`: `registration_invalid`, `app_id_required`, `no_functions`, `sdk_version_denied`,
    `plan_upgrade_required`, or the code of the first problem of a function, all of them in `details["problems"]`.
    """
    try:
        return _read(canonical.decode(body), checks or Checks(), url)
    except JsonRefused as refused:
        raise RegistrationRefused("registration_invalid", refused.message, refused.details) from None


def _read(value: object, checks: Checks, url: str | None) -> Registration:
    if not isinstance(value, dict):
        raise RegistrationRefused("registration_invalid", "The registration is not an object.")
    fields = {key.lower(): item for key, item in value.items()}
    app_name = _text(fields, "appname") or _text(fields, "app_id")
    if not app_name.strip():
        raise RegistrationRefused("app_id_required", "App ID required")
    if len(app_name) > MAX_SLUG_CHARS:
        raise RegistrationRefused("registration_invalid", f"An app's id may have {MAX_SLUG_CHARS} characters.")
    language, version = _sdk(fields)
    _check_version(language, version)

    address = _text(fields, "url") or (url or "")
    if not is_app_address(address):
        raise RegistrationRefused("registration_invalid", "The app's URL must begin with http:// or https://.")
    address = normalise_url(address)
    findings = Findings()
    functions = _functions(fields.get("functions"), address, checks, findings)
    if findings.problems:
        raise RegistrationRefused(
            findings.problems[0].code,
            "At least one function is invalid",
            {"problems": [_shown(problem) for problem in findings.problems]},
        )
    registration = Registration(
        app_name=app_name,
        url=address,
        functions=functions,
        checksum="",
        sdk_language=language,
        sdk_version=version,
        framework=_text(fields, "framework"),
        platform=_text(fields, "platform") or _text(_object(fields.get("headers")), "platform"),
        app_version=_text(fields, "appversion"),
        deploy_type=_text(fields, "deploytype") or _text(fields, "deploy_type") or "ping",
        environment=_text(fields, "env") or None,
        capabilities=canonical.encode(_object(fields.get("capabilities"))),
        is_in_band="app_id" in fields,
        warnings=tuple(findings.warnings),
    )
    return _with_checksum(registration)


def _functions(value: object, address: str, checks: Checks, findings: Findings) -> tuple[FunctionConfig, ...]:
    items = value if isinstance(value, list) else []
    if not items:
        raise RegistrationRefused(
            "no_functions", "The app registers no functions: add at least one to its serve handler."
        )
    if checks.plan is not None and len(items) > checks.plan.functions_per_app:
        raise RegistrationRefused(
            "plan_upgrade_required",
            f"The app has {len(items)} functions; the plan {checks.plan.name} allows {checks.plan.functions_per_app}.",
        )
    found = [read_function(item, app_url=address, checks=checks, findings=findings) for item in items]
    functions = sorted((one for one in found if one is not None), key=lambda one: one.slug)
    for one, following in pairwise(functions):
        if one.slug == following.slug:
            findings.problems.append(Problem(one.slug, "id", "config_invalid", "Two functions have this id."))
    return tuple(functions)


def _with_checksum(registration: Registration) -> Registration:
    # The SDK's version counts: what an app can do changes with it.
    parts = [
        registration.app_name,
        same_place(registration.url),
        registration.sdk_language,
        registration.sdk_version,
        registration.framework,
        registration.platform,
        registration.app_version,
        registration.deploy_type,
    ]
    digest = hashlib.sha256(canonical.canonical_value(parts))
    digest.update(registration.capabilities)
    for function in registration.functions:
        digest.update(b"\x00" + placeless(function.raw, function.url))
    return replace(registration, checksum=digest.hexdigest())


def _sdk(fields: Mapping[str, Any]) -> tuple[str, str]:
    # py in-band has no `sdk`; ts in-band fills only `sdk` and leaves language and version empty in dev mode.
    match = _SDK.fullmatch(_text(fields, "sdk"))
    if match:
        return match[1].removeprefix("inngest-"), match[2]
    return _text(fields, "sdk_language"), _text(fields, "sdk_version").removeprefix("v")


def _check_version(language: str, version: str) -> None:
    denied, match = _DENIED.get(language), _VERSION.match(version)
    if denied is None or match is None:
        return
    major, minor, patch = (int(part) for part in match.groups())
    if denied[0] <= (major, minor, patch) <= denied[1]:
        last = ".".join(map(str, denied[1]))
        raise RegistrationRefused(
            "sdk_version_denied",
            f"Version {version} of the SDK has a known weakness: use one later than {last}.",
            {"language": language, "version": version},
        )


def _shown(problem: Problem) -> dict[str, str]:
    return {"function": problem.function, "field": problem.field, "code": problem.code, "message": problem.message}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else ""


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
