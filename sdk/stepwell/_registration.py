"""What the app tells a server about itself: registration and introspection (protocol 7 and 9)."""

import hashlib
from collections.abc import Sequence
from typing import Any

from stepwell import _signature
from stepwell._function import Function
from stepwell._settings import Settings
from stepwell._version import AUTHOR, LANGUAGE, SDK_HEADER, __version__

CAPABILITIES = {"trust_probe": "v1", "in_band_sync": "v1"}


def list_functions(functions: Sequence[Function], serve_url: str) -> list[dict[str, Any]]:
    """All functions as registered, each followed by its failure function."""
    written = []
    for function in functions:
        written.append(function.to_wire(serve_url))
        if function.on_failure is not None:
            written.append(function.on_failure.to_wire(serve_url))
    return written


def registration(app_id: str, functions: Sequence[Function], serve_url: str, framework: str) -> dict[str, Any]:
    """The body for the server's register endpoint (protocol 7.1)."""
    return {
        "url": serve_url,
        "appName": app_id,
        "deployType": "ping",
        "framework": framework,
        "sdk": SDK_HEADER,
        "v": "0.1",
        "functions": list_functions(functions, serve_url),
        "capabilities": CAPABILITIES,
    }


def in_band(
    app_id: str, functions: Sequence[Function], serve_url: str, framework: str, settings: Settings
) -> dict[str, Any]:
    """The answer to a server that asks for the functions directly (protocol 7.3)."""
    return {
        "app_id": app_id,
        "capabilities": CAPABILITIES,
        "env": settings.env,
        "framework": framework,
        "functions": list_functions(functions, serve_url),
        "inspection": introspection(app_id, functions, framework, settings, is_authenticated=True),
        "sdk": SDK_HEADER,
        "sdk_author": AUTHOR,
        "sdk_language": LANGUAGE,
        "sdk_version": __version__,
        "url": serve_url,
    }


def introspection(
    app_id: str, functions: Sequence[Function], framework: str, settings: Settings, *, is_authenticated: bool
) -> dict[str, Any]:
    """What a GET tells (protocol 9.1): little to strangers, hashes of the keys to who holds the signing key."""
    keys = settings.signing_keys
    public = {
        "schema_version": "2024-05-24",
        "function_count": len(functions),
        "has_event_key": settings.event_key is not None,
        "has_signing_key": bool(keys),
        "has_signing_key_fallback": len(keys) > 1,
        "mode": settings.kind,
        "extra": {},
        "authentication_succeeded": True if is_authenticated else None,
    }
    if not is_authenticated:
        return public
    event_key = settings.event_key
    return public | {
        "api_origin": settings.api_origin,
        "app_id": app_id,
        "capabilities": CAPABILITIES,
        "env": settings.env,
        "event_api_origin": settings.event_origin,
        "event_key_hash": hashlib.sha256(event_key.encode()).hexdigest() if event_key else None,
        "extra": {"is_streaming": False},
        "framework": framework,
        "sdk_language": LANGUAGE,
        "sdk_version": __version__,
        "serve_origin": settings.serve_origin,
        "serve_path": settings.serve_path,
        "signing_key_hash": _signature.hash_key(keys[0]) if keys else None,
        "signing_key_fallback_hash": _signature.hash_key(keys[1]) if len(keys) > 1 else None,
    }
