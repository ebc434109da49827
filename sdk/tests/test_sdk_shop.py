"""The sample shop of the repository, driven to the end of an order without a server."""

import importlib
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sdk_world import Engine, Request, call_asgi, connect


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setenv("SHOP_LOG", str(tmp_path / "shop" / "log.jsonl"))
    return importlib.import_module("examples.shop.web")


def order(cents: int = 1200) -> Any:
    data = {"order_id": "o1", "items": ["mug"], "cents": cents, "email": "ann@example.com"}
    return {"name": "shop/order.placed", "id": "o1", "data": data}


def fulfil(shop: ModuleType, **options: Any) -> Engine:
    engine = Engine(shop.app, "shop-fulfil-order", **{"event": order(), "max_attempts": 5, **options})
    connect(shop.client, engine.checkpoint)
    return engine


def effects(shop: ModuleType) -> Counter[tuple[str, str]]:
    return Counter((line["step"], line["outcome"]) for line in shop.ledger.lines("o1"))


def test_an_order_is_charged_once_after_two_refusals(shop: ModuleType) -> None:
    engine = fulfil(shop)

    assert engine.run() == (
        "ok",
        {
            "order_id": "o1",
            "reservation": "res_o1",
            "cents": 1440,
            "charge_id": "ch_o1",
            "tracking": "trk_o1",
            "confirmation": "sent to ann@example.com",
        },
    )
    assert effects(shop) == Counter(
        {
            ("reserve-stock", "done"): 1,
            ("check-fraud", "done"): 1,
            ("price-tax", "done"): 1,
            ("charge-payment", "refused"): 2,
            ("charge-payment", "done"): 1,
            ("pack-order", "done"): 1,
            ("send-confirmation", "done"): 1,
        }
    )
    refused = [answer for answer in engine.answers if "retry-after" in answer.headers]
    assert [answer.headers["retry-after"] for answer in refused] == ["2", "2"]
    charges = [line["attempt"] for line in shop.ledger.lines("o1") if line["step"] == "charge-payment"]
    assert charges == [0, 1, 2]


def test_a_charge_whose_result_was_lost_is_not_made_again(shop: ModuleType) -> None:
    engine = fulfil(shop)
    while effects(shop)[("charge-payment", "done")] == 0:
        engine._call(*engine._items.popleft())
    paid = next(step for step, memo in engine.steps.items() if memo == {"data": "ch_o1"})
    engine.stack.remove(paid)
    del engine.steps[paid]
    engine.outcome = None
    engine._items.clear()
    engine._items.append(("step", 0))

    assert engine.run()[1]["charge_id"] == "ch_o1"
    assert effects(shop)[("charge-payment", "done")] == 1
    assert effects(shop)[("charge-payment", "repeated")] == 1


def test_a_suspicious_order_fails_at_once_without_a_charge(shop: ModuleType) -> None:
    state, error = fulfil(shop, event=order(cents=1_000_000)).run()
    assert (state, error["name"]) == ("failed", "NonRetriableError")
    assert not any(step == "charge-payment" for step, _ in effects(shop))


def test_placing_an_order_sends_one_event_with_the_orders_id(shop: ModuleType) -> None:
    def respond(request: Request) -> tuple[int, Any]:
        return 200, {"ids": ["01EVENT"], "status": 200}

    server = connect(shop.client, respond)
    answer = call_asgi(shop.app, "POST", "/orders", json.dumps({"id": "o7", "cents": 500}).encode())

    assert (answer.status, answer.content) == (202, {"order_id": "o7", "event_id": "01EVENT"})
    (event,) = server.requests[0].body
    assert (event["name"], event["id"], event["data"]["cents"]) == ("shop/order.placed", "o7", 500)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"cents": -1}', b'{"cents": true}', b'{"id": "a b"}', b" " * 70_000])
def test_an_order_that_cannot_be_right_is_refused(shop: ModuleType, body: bytes) -> None:
    assert call_asgi(shop.app, "POST", "/orders", body).status == 400


def test_an_order_that_stepwell_does_not_take_is_not_accepted(shop: ModuleType) -> None:
    connect(shop.client, lambda _: (401, {"error": "Event key not found"}))
    answer = call_asgi(shop.app, "POST", "/orders")
    assert (answer.status, "Event key not found" in answer.content["error"]) == (502, True)


def test_an_order_shows_what_was_done_for_it(shop: ModuleType) -> None:
    assert call_asgi(shop.app, "GET", "/orders/o1").status == 404
    fulfil(shop).run()
    content = call_asgi(shop.app, "GET", "/orders/o1").content
    assert (content["is_confirmed"], content["charges"]) == (True, ["ch_o1"])
    assert call_asgi(shop.app, "GET", "/nothing").status == 404
