"""`/dev/ui`: every component in all its states, both themes side by side. For people who work on pages; not linked."""

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Router, get
from litestar.di import NamedDependency
from litestar.response import Template

from app.reads.events import StartedRun
from app.reads.settings_of import TriggerLine, pieces
from app.reads.stacks import Line
from app.reads.stored import Payload
from app.web.guards import Principal, require_person
from app.web.hx import PRIVATE

Who = NamedDependency[Principal]

STATES = (
    "queued",
    "running",
    "retrying",
    "waiting",
    "completed",
    "failed",
    "cancelled",
    "skipped",
    "ignored",
    "active",
    "paused",
    "archived",
    "synced",
)
_NOW = datetime(2026, 11, 23, 14, 31, tzinfo=UTC)
_JSON = '{"order_id":"ord_58213","total":184.50,"lines":[{"sku":"a","n":2},{"sku":"b","n":1}],"gift":false,"note":null}'


@get("/dev/ui", name="components", include_in_schema=False)
async def components_page(principal: Who) -> Template:
    """Every macro of `templates/components/` in every state it has."""
    context: dict[str, Any] = {
        "principal": principal,
        "states": STATES,
        "now": _NOW,
        "times": [_NOW - timedelta(seconds=s) for s in (1, 42, 400, 9000, 90_000)],
        "payload": Payload(_JSON, len(_JSON), is_cut=False),
        "hostile": Payload('{"<script>alert(1)</script>":"\u202eevil\u0007"}', 46, is_cut=False),
        "large": Payload('"' + "x" * 3000, 400_000, is_cut=True),
        "broken": Payload("not json at all", 15, is_cut=False),
        "spark_bars": tuple((n * 7 % 23, max(0, n * 7 % 23 - 17)) for n in range(24)),
        "quiet": ((0, 0),) * 24,
        "key": {"id": "shown", "prefix": "sk_live_", "last_four": "a91f"},
        "open_key": {"id": "open", "prefix": "sk_live_", "last_four": "77c2"},
        "tracks": _tracks(),
        "runs": [
            StartedRun(f"01KB{n:022d}", state, "process-order")
            for n, state in enumerate(("completed", "failed", "running", "queued", "cancelled"))
        ],
        "triggers": (
            TriggerLine("event", "order/placed", pieces("event.data.total > 100 && event.data.country == 'NO'")),
            TriggerLine("event", "user.*"),
            TriggerLine("cron", "TZ=Europe/Oslo 0 9 * * 1-5", jitter="30 s"),
        ),
        "error": {
            "name": "WarehouseTimeout",
            "message": "no answer from wms.internal within 500 ms",
            "stack": (
                Line('  File "/app/shop/warehouse.py", line 57, in notify', "own", is_first=True),
                Line('  File "/site-packages/httpx/_client.py", line 394, in send', "library", is_first=False),
            ),
        },
    }
    return Template("pages/dev/ui.html", context=context, headers=PRIVATE)


def _tracks() -> tuple[dict[str, Any], ...]:
    """Rows of a timeline: name, colour, shape, place and width in percent, note."""
    return tuple(
        {"name": name, "colour": colour, "x": x, "width": width, "shape": shape, "words": words}
        for name, colour, x, width, shape, words in (
            ("queued", "queue", 0, 12, "hatch", "380 ms in the queue"),
            ("validate-cart", "ok", 12, 14, "solid", "420 ms"),
            ("charge-card", "fail", 26, 10, "solid", "attempt 1 failed"),
            ("back-off", "retry", 36, 20, "dots", "retry in 2.00 s"),
            ("cool-off", "wait", 40, 44, "outline", "asleep until 14:33:00"),
            ("notify-warehouse", "run", 84, 12, "solid", "running"),
        )
    )


HANDLERS: tuple[Any, ...] = (components_page,)

ROUTER = Router(path="/", route_handlers=HANDLERS, guards=[require_person])
