"""The shop's web side, as a bare ASGI app: place an order, look at one, and let Stepwell call the function.

POST /orders        {"items": ["mug"], "cents": 1200, "email": "ann@example.com"} → 202 {"order_id": …}
GET  /orders/{id}   what was done for it so far
/api/inngest        Stepwell's door
"""

import json
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import stepwell

from . import ledger
from .workflow import ORDER_PLACED, client

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BODY_LIMIT = 64 * 1024

_stepwell = stepwell.serve.asgi(client)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request."""
    if scope["type"] != "http" or scope["path"].startswith("/api/inngest"):
        await _stepwell(scope, receive, send)
        return
    match scope["method"], scope["path"].strip("/").split("/"):
        case "POST", ["orders"]:
            status, content = await _place(await _read(receive))
        case "GET", ["orders", order_id]:
            status, content = _show(order_id)
        case _:
            status, content = 404, {"error": "There is POST /orders and GET /orders/{id}."}
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _place(body: bytes | None) -> tuple[int, dict[str, Any]]:
    """Send the order to Stepwell. The order's id is the event's id, so placing it twice fulfils it once."""
    try:
        order = _read_order(body)
    except ValueError as error:
        return 400, {"error": str(error)}
    event = stepwell.EventMessage(name=ORDER_PLACED, id=order["order_id"], data=order)
    try:
        event_ids = await client.send(event)
    except stepwell.SendEventsError as error:
        return 502, {"error": str(error)}
    return 202, {"order_id": order["order_id"], "event_id": event_ids[0]}


def _read_order(body: bytes | None) -> dict[str, Any]:
    """Read and complete an order; ValueError says what is wrong."""
    if body is None:
        raise ValueError(f"An order has at most {_BODY_LIMIT} bytes.")
    asked = json.loads(body) if body else {}
    if not isinstance(asked, dict):
        raise ValueError("An order is a JSON object.")  # noqa: TRY004  what was sent is wrong, not the program
    order = {
        "order_id": asked.get("id") or f"o{secrets.token_hex(6)}",
        "items": asked.get("items") or ["mug"],
        "cents": asked.get("cents", 1200),
        "email": asked.get("email") or "ann@example.com",
    }
    if not (isinstance(order["order_id"], str) and _ORDER_ID.fullmatch(order["order_id"])):
        raise ValueError("An order's id is made of letters, digits, - and _, 64 at most.")
    if not (isinstance(order["cents"], int) and not isinstance(order["cents"], bool) and order["cents"] > 0):
        raise ValueError("'cents' is a whole number above 0.")
    return order


def _show(order_id: str) -> tuple[int, dict[str, Any]]:
    done = ledger.lines(order_id)
    if not done:
        return 404, {"error": f"Nothing was done for order {order_id!r} yet."}
    is_confirmed = any(line["step"] == "send-confirmation" for line in done)
    charges = [line["charge_id"] for line in done if line["step"] == "charge-payment" and line["outcome"] == "done"]
    return 200, {"order_id": order_id, "is_confirmed": is_confirmed, "charges": charges, "effects": done}


async def _read(receive: Receive) -> bytes | None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _BODY_LIMIT:
            return None
    return body
