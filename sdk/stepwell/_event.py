"""Events and what triggers a function."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec


class EventMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event, as sent by `client.send` and as received in `ctx.event`.

    `id` makes sending safe to repeat: for 24 hours the same id starts a function only once. `ts` is in milliseconds since
    1970; a moment in the future delays what the event starts until then.
    """

    name: str
    data: dict[str, Any] = {}
    id: str | None = None
    ts: int | None = None
    v: str | None = None
    user: dict[str, Any] = {}


@dataclass(frozen=True)
class Event:
    """Trigger: run the function for each event of this name (`shop/*` matches a prefix) for which `if_`, in CEL, holds."""

    name: str
    if_: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The trigger as registered (protocol 8.3)."""
        return {"event": self.name, "expression": self.if_} if self.if_ else {"event": self.name}


@dataclass(frozen=True)
class Cron:
    """Trigger: run the function by the clock, such as `0 9 * * 1` or `TZ=Europe/Paris 0 9 * * 1`."""

    schedule: str
    jitter: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The trigger as registered (protocol 8.3)."""
        return {"cron": self.schedule, "jitter": self.jitter} if self.jitter else {"cron": self.schedule}


Trigger = Event | Cron

#: What `send` takes for one event: the message, or a mapping with the same keys.
Sendable = EventMessage | Mapping[str, Any]


def to_message(event: Sendable) -> EventMessage:
    """Check an event before it is sent and fill in its time; ValueError says what is missing."""
    message = event if isinstance(event, EventMessage) else _from_mapping(event)
    if not message.name:
        raise ValueError("An event needs a name, such as 'shop/order.placed'.")
    return msgspec.structs.replace(message, ts=message.ts or int(time.time() * 1000), id=message.id or None)


def _from_mapping(event: Mapping[str, Any]) -> EventMessage:
    unknown = set(event) - set(EventMessage.__struct_fields__)
    if unknown:
        raise ValueError(f"An event has no field {min(unknown)!r}: put your own values into 'data'.")
    try:
        return EventMessage(**event)
    except TypeError:
        raise ValueError("An event needs a name, such as 'shop/order.placed'.") from None


def received(stored: Any) -> EventMessage:
    """Read an event out of a call, leniently: absent or null parts become empty (protocol 10.2)."""
    fields = stored if isinstance(stored, dict) else {}
    data, user = fields.get("data"), fields.get("user")
    return EventMessage(
        name=str(fields.get("name", "")),
        data=data if isinstance(data, dict) else {},
        id=fields.get("id"),
        ts=fields.get("ts"),
        v=fields.get("v"),
        user=user if isinstance(user, dict) else {},
    )
