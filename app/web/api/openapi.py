"""The OpenAPI document, put together from the handlers: `/api/openapi.json`, and `/api/docs` as a plain list.

Addresses, methods and sentences are the handlers' own, so a new route cannot be missing. What a handler does not show,
its query and its body, stands in the two tables here. Events have their own door outside the framework and are written
by hand. `/api/v2/…` is the same as `/v2/…` and is not listed twice.
"""

import html
import inspect
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Litestar, Response, get
from litestar.datastructures import State
from litestar.routes import HTTPRoute

from app.reads.api import STATUSES, TIME_FIELDS

PREFIXES: Final = ("/v0/", "/v1/", "/v2/", "/fn/", "/invoke/", "/dev", "/health", "/ready")
"""Where machines are answered."""

_OPEN = frozenset({"/v2/health", "/health", "/ready", "/dev", "/v0/telemetry"})
_TEXT: Final[dict[str, object]] = {"type": "string"}
_TIME: Final[dict[str, object]] = {"type": "string", "format": "date-time"}
_FLAG: Final[dict[str, object]] = {"type": "boolean", "default": False}


def _number(most: int) -> dict[str, object]:
    return {"type": "integer", "minimum": 1, "maximum": most, "default": 20}


_RUNS_QUERY: Final[Mapping[str, dict[str, object]]] = {
    "status": {"type": "array", "items": {"type": "string", "enum": sorted(STATUSES)}},
    "appId": {"type": "array", "items": _TEXT},
    "functionId": {"type": "array", "items": _TEXT},
    "from": _TIME,
    "until": _TIME,
    "timeField": {"type": "string", "enum": sorted(TIME_FIELDS), "default": "QUEUED_AT"},
    "order": {"type": "string", "enum": ["ASC", "DESC"], "default": "DESC"},
    "cursor": _TEXT,
    "limit": _number(100),
    "includeOutput": _FLAG,
}
QUERIES: Final[Mapping[str, Mapping[str, dict[str, object]]]] = {
    "GET /v1/events": {
        "limit": _number(51),
        "cursor": _TEXT,
        "name": _TEXT,
        "received_after": _TIME,
        "received_before": _TIME,
    },
    "GET /v2/runs": _RUNS_QUERY,
    "GET /v2/apps/{app_name}/functions/{function}/runs": _RUNS_QUERY,
    "GET /v2/events/{event_id}/runs": _RUNS_QUERY,
    "DELETE /fn/remove": {"url": _TEXT},
}

_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 512},
        "data": {"type": "object"},
        "user": {"type": "object"},
        "id": {"type": "string", "maxLength": 256},
        "ts": {"type": "integer"},
        "v": _TEXT,
    },
}
_STEP = {"type": "object", "required": ["stepId"], "properties": {"stepId": _TEXT, "input": {"type": "array"}}}
BODIES: Final[Mapping[str, dict[str, Any]]] = {
    "POST /fn/register": {"type": "object", "required": ["url", "appName", "functions"]},
    "POST /v1/checkpoint/{run_id}/async": {"type": "object", "required": ["steps"]},
    "POST /v2/events": _EVENT,
    "POST /v2/runs/{run_id}/rerun": {"type": "object", "properties": {"fromStep": _STEP}},
    "POST /v2/apps/{app_name}/functions/{function}/invoke": {
        "type": "object",
        "properties": {"data": {"type": "object"}, "idempotencyKey": {"type": "string", "maxLength": 256}},
    },
    "POST /v2/apps/{app_name}/syncs": {"type": "object", "properties": {"url": _TEXT}},
    "POST /v2/apps/{app_name}/functions/{function}/overrides": {
        "type": "object",
        "required": ["kind"],
        "properties": {
            "kind": {"type": "string", "enum": ["limit", "key", "hold", "retry"]},
            "limit": {"type": "string", "enum": ["concurrency", "concurrency2", "runs", "throttle"]},
            "key": _TEXT,
            "allowed": {"type": "integer", "minimum": 0},
            "period": _TEXT,
            "burst": {"type": "integer", "minimum": 0},
            "initial": _TEXT,
            "factor": {"type": "number", "minimum": 1, "maximum": 100},
            "cap": _TEXT,
            "expiresIn": _TEXT,
            "reason": {"type": "string", "maxLength": 500},
        },
    },
}

_BY_HAND: Final[dict[str, Any]] = {
    "/e/{event_key}": {
        "post": {
            "summary": "Send one event, or a list of up to 5,000: all are stored, or none.",
            "operationId": "send_events",
            "tags": ["events"],
            "security": [],
            "parameters": [{"name": "event_key", "in": "path", "required": True, "schema": _TEXT}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"oneOf": [_EVENT, {"type": "array", "items": _EVENT}]}}},
            },
            "responses": {
                "200": {"description": "The internal id of each event, in order."},
                "default": {"$ref": "#/components/responses/Fault"},
            },
        }
    }
}


def document(application: Litestar) -> dict[str, Any]:
    """The whole document for the routes of an application."""
    paths: dict[str, Any] = dict(_BY_HAND)
    for route in sorted(application.routes, key=lambda one: one.path_format):
        if not isinstance(route, HTTPRoute) or not route.path_format.startswith(PREFIXES):
            continue
        for handler in route.route_handlers:
            for method in sorted(set(handler.http_methods) - {"OPTIONS", "HEAD"}):
                operation = _operation(method, route.path_format, handler)
                paths.setdefault(route.path_format, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stepwell",
            "version": "1",
            "description": "Durable functions, and what is known about them.",
        },
        "security": [{"signingKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "signingKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A signing key of the environment, or the SHA-256 that SDKs send for it.",
                }
            },
            "responses": {
                "Fault": {
                    "description": "What is wrong, with a stable `code`. Below /v2 it stands in `errors`, else in `error`.",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                }
            },
        },
    }


def text(application: Litestar) -> bytes:
    """The document as JSON, made once per process."""
    return msgspec.json.encode(document(application))


@get("/api/openapi.json")
async def openapi(state: State) -> Response[bytes]:
    """Give the OpenAPI document."""
    return Response(state.openapi, media_type="application/json")


@get("/api/docs")
async def docs(state: State) -> Response[bytes]:
    """List all addresses for people, without script and style."""
    paths: dict[str, Any] = msgspec.json.decode(state.openapi)["paths"]
    lines = [
        f"<li><code>{method.upper()} {html.escape(path)}</code><br>{html.escape(operation['summary'])}</li>"
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Stepwell API</title><h1>Stepwell API</h1>'
        '<p>The whole document: <a href="/api/openapi.json">openapi.json</a>.</p><ul>' + "".join(lines) + "</ul></html>"
    )
    headers = {"content-security-policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"}
    return Response(page.encode(), media_type="text/html; charset=utf-8", headers=headers)


HANDLERS = (openapi, docs)


def _operation(method: str, path: str, handler: Any) -> dict[str, Any]:
    key = f"{method} {path}"
    sentences = inspect.getdoc(inspect.unwrap(handler.fn)) or ""
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in re.findall(r"\{(\w+)\}", path)
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in QUERIES.get(key, {}).items()]
    operation: dict[str, Any] = {
        "summary": " ".join(sentences.partition("\n\n")[0].split()),
        "operationId": f"{method.lower()}_{re.sub(r'[^a-z0-9]+', '_', path.lower()).strip('_')}",
        "tags": [path.split("/")[1]],
        "responses": {
            str(handler.status_code or 200): {"description": "Done."},
            "default": {"$ref": "#/components/responses/Fault"},
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if key in BODIES:
        operation["requestBody"] = {"content": {"application/json": {"schema": BODIES[key]}}}
    if path in _OPEN:
        operation["security"] = []
    return operation
