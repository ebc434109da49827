"""The set-up guide: from keys to a first run on one page, each step with its live state. `/env/{slug}/start`."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.datastructures import Cookie, State
from litestar.di import NamedDependency
from litestar.response import Redirect, Stream, Template

from app.accounts import keys
from app.domain.errors import Refused
from app.domain.event import read_events
from app.domain.ids import parse_ulid, to_ulid
from app.domain.limits import PLANS
from app.engine.sync import Synced, SyncFailed, sync_app
from app.engine.sync_cause import Cause, find_cause
from app.reads.start import Progress, load_progress
from app.store import keys as key_rows
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.forms import Fields
from app.web.guards import Principal, network_of, require_person, require_role
from app.web.hx import PRIVATE, Hx
from app.web.samples import FIRST, SAMPLES, Sample, highlighted, variables
from app.web.secrets import SHOWN_S, as_text, wants_text
from app.web.shell import frame
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Here = NamedDependency[Site]

_LARGEST_FORM = 64 * 1024
_LONGEST_URL = 2000
#: What a sync goes through, in order: the words `sync_app` says, and ours.
STAGES = (("reached", "The app answers"), ("signed", "Its signature is right"), ("found", "Its functions are known"))
_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EnvironmentArchived(Refused):
    """The environment is archived. Unarchive it first."""

    def __init__(self) -> None:
        super().__init__("env_archived")


@get("/env/{slug:str}/start", name="start", include_in_schema=False)
async def guide(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Template:
    """The guide; for htmx with target `#sample` only the steps that differ between SDKs."""
    return await _guide(request, principal, environment, site)


@get("/env/{slug:str}/start/changes", name="start_changes", include_in_schema=False)
async def changes(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Template:
    """The steps' state as partials, fetched whenever something may have changed."""
    progress, sent = await _progress(request, principal, environment, site)
    context = frame(principal, environment, "start") | _state(environment, progress, sent)
    return Template("fragments/start/changes.html", context=context, headers=PRIVATE)


@post(
    "/env/{slug:str}/start/keys", guards=[require_role("member")], status_code=200, request_max_body_size=_LARGEST_FORM
)
async def open_keys(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Response[Any]:
    """The `.env` block with the keys in it: as text for the copy button, else the page around it for a minute."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        actor = principal.actor(network_of(request))
        event_key, signing_key = await _live_keys(conn, environment)
        opened = ("", "")
        if not site.is_dev and event_key and signing_key:
            opened = (
                await keys.reveal_event_key(conn, site.sealer, environment.scope, actor, event_key.id),
                await keys.reveal_signing_key(conn, site.sealer, environment.scope, actor, signing_key.id),
            )
    block = _block(_sample(request), site, *opened)
    if wants_text(request):
        return as_text(block)
    response = await _guide(request, principal, environment, site, block=block)
    response.headers["Refresh"] = f"{SHOWN_S}; url=/env/{environment.slug}/start"
    return response


@post(
    "/env/{slug:str}/start/sync", guards=[require_role("member")], status_code=200, request_max_body_size=_LARGEST_FORM
)
async def sync(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Response[Any] | Stream:
    """Sync the app at the pasted URL: with scripts as a stream of its progress, else the page with the result."""
    url = (await Fields.of(request)).text("url")[:_LONGEST_URL]
    if Hx.of(request.headers).is_partial:
        return Stream(_sync_lines(request, environment, site, url), media_type="text/event-stream", headers=_STREAM)
    outcome = await _sync(environment, site, url, asyncio.Queue())
    return await _guide(request, principal, environment, site, url=url, outcome=outcome)


@post("/env/{slug:str}/start/event", guards=[require_role("member")], request_max_body_size=_LARGEST_FORM)
async def send(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Response[Any]:
    """Send a test event into the environment, as an app would."""
    form = await Fields.of(request)
    given = {"name": form.text("name"), "data": form.text("data") or "{}"}
    try:
        event_id = to_ulid(await _send(environment, site, given))
    except Refused as refused:
        field = "data" if refused.code.startswith(("json", "event_data", "event_too")) else "name"
        return await _guide(request, principal, environment, site, event=given, errors={field: refused.message})
    if Hx.of(request.headers).is_partial:
        return await _guide(request, principal, environment, site, sent=event_id, only="fragments/start/first_run.html")
    return Redirect(f"/env/{environment.slug}/start?sent={event_id}#step-4", status_code=303)


async def _guide(
    request: AnyRequest,
    principal: Principal,
    environment: Environment,
    site: Site,
    *,
    block: str | None = None,
    url: str = "",
    outcome: Synced | Cause | None = None,
    event: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    sent: str = "",
    only: str = "",
) -> Template:
    progress, asked = await _progress(request, principal, environment, site, sent)
    sample = _sample(request)
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        event_key, signing_key = await _live_keys(conn, environment)
    first_event = progress.events[0] if progress.events else "demo/hello"
    context = frame(principal, environment, "start") | _state(environment, progress, asked)
    context |= {
        "sample": sample,
        "samples": SAMPLES.values(),
        "code": highlighted(sample.key),
        "masked": _block(sample, site, _masked(event_key), _masked(signing_key)),
        "has_keys": site.is_dev or (event_key is not None and signing_key is not None),
        "block": block,
        "shown_s": SHOWN_S,
        "url": url,
        "stages": STAGES,
        "reached": [name for name, _ in STAGES] if isinstance(outcome, Synced) else [],
        "outcome": outcome,
        "is_syncing": False,
        "event": event or {"name": first_event, "data": '{"name": "Ada"}'},
        "errors": errors or {},
    }
    hx = Hx.of(request.headers)
    name = only or ("fragments/start/sample.html" if hx.wants("sample") else "pages/start/guide.html")
    is_wrong = bool(errors) or isinstance(outcome, Cause)
    if errors and hx.is_partial:
        name = "fragments/start/event_form.html"
    return Template(
        name,
        context=context,
        headers=dict(PRIVATE),
        status_code=422 if is_wrong else 200,
        cookies=[
            Cookie(key="sdk", value=sample.key, path="/", max_age=31_536_000, samesite="lax", secure=site.is_https)
        ],
    )


async def _progress(
    request: AnyRequest, principal: Principal, environment: Environment, site: Site, sent: str = ""
) -> tuple[Progress, str]:
    """The steps' state, and the id of the test event that was sent from here (or nothing)."""
    event_id = parse_ulid(sent or request.query_params.get("sent", ""))
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        progress = await load_progress(conn, environment.id, event_id)
    return progress, to_ulid(event_id) if event_id else ""


def _state(environment: Environment, progress: Progress, sent: str) -> dict[str, Any]:
    base = f"/env/{environment.slug}"
    return {
        "progress": progress,
        "sent": sent,
        "base": f"{base}/start",
        "runs_base": f"{base}/runs",
        "now": progress.now,
    }


def _sample(request: AnyRequest) -> Sample:
    """The SDK whose tab is open: the asked one, else the one that was open last."""
    for key in (request.query_params.get("sdk"), request.cookies.get("sdk"), FIRST):
        if key in SAMPLES:
            return SAMPLES[key]
    return SAMPLES[FIRST]


async def _live_keys(
    conn: Any, environment: Environment
) -> tuple[key_rows.EventKey | None, key_rows.SigningKey | None]:
    event_keys = await key_rows.list_event_keys(conn, environment.scope)
    signing_keys = await key_rows.list_live_signing_keys(conn, environment.id)
    return (
        next((key for key in event_keys if key.revoked_at is None), None),
        next((key for key in signing_keys if key.state == "current"), None),
    )


def _masked(key: key_rows.EventKey | key_rows.SigningKey | None) -> str:
    return f"{key.prefix}••••{key.last_four}" if key else ""


def _block(sample: Sample, site: Site, event_key: str, signing_key: str) -> str:
    return variables(sample, site.base_url, is_dev=site.is_dev, event_key=event_key, signing_key=signing_key)


async def _sync(environment: Environment, site: Site, url: str, heard: "asyncio.Queue[str]") -> Synced | Cause:
    if environment.archived_at is not None:
        raise EnvironmentArchived
    signing = [] if site.is_dev else await site.signing_keys.of(environment.id)
    done = await sync_app(
        site.ingest,
        site.outgoing,
        environment.scope,
        url,
        server_kind=site.server_kind,
        keys=signing,
        on_step=heard.put_nowait,
    )
    if isinstance(done, SyncFailed):
        return await find_cause(
            site.outgoing, url, done, keys=signing, server_kind=site.server_kind, base_url=site.base_url
        )
    return done


async def _sync_lines(request: AnyRequest, environment: Environment, site: Site, url: str) -> AsyncIterator[str]:
    """Server-sent messages, each the whole progress list as it stands; the last one has the result."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    reached: list[str] = []
    task = asyncio.create_task(_sync(environment, site, url, heard))
    try:
        yield _message(request, reached, None)
        while not task.done():
            listening = asyncio.create_task(heard.get())
            await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                reached.append(listening.result())
                yield _message(request, reached, None)
            else:
                listening.cancel()
        try:
            outcome = task.result()
        except Refused as refused:
            outcome = Cause(refused.code, "That did not work", refused.message, "")
        if isinstance(outcome, Synced):
            reached = [name for name, _ in STAGES]
        yield _message(request, reached, outcome)
    finally:
        task.cancel()


def _message(request: AnyRequest, reached: list[str], outcome: Synced | Cause | None) -> str:
    engine = request.app.template_engine
    assert engine is not None, "pages have templates"
    html = engine.get_template("fragments/start/sync.html").render(
        stages=STAGES, reached=reached, outcome=outcome, is_syncing=outcome is None
    )
    return "".join(f"data: {line}\n" for line in html.splitlines() if line.strip()) + "\n"


async def _send(environment: Environment, site: Site, given: dict[str, str]) -> UUID:
    if environment.archived_at is not None:
        raise EnvironmentArchived
    try:
        data = msgspec.json.decode(given["data"])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise Refused("json_invalid", "This is not JSON. Text and names need double quotes.") from None
    if not isinstance(data, dict):
        raise Refused("event_data_invalid", 'Event data is a JSON object: {"name": "Ada"}.')
    body = b'{"name":' + msgspec.json.encode(given["name"]) + b',"data":' + given["data"].encode() + b"}"
    # Read as a request of an app is, so that what is refused there is refused here.
    now = time.time_ns() // 1_000_000
    events = read_events(body, max_event_bytes=PLANS["self_hosted"].event_bytes, received_ms=now)
    ids = await site.events.add(environment.scope, events)
    return ids[0]


ROUTER = Router(path="/", route_handlers=[guide, changes, open_keys, sync, send], guards=[require_person])
