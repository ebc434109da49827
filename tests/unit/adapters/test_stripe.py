"""Webhooks are believed only with a fresh signature of our secret over exactly these octets."""

import json
import time

import pytest

from app.adapters.stripe import Stripe
from app.domain.subscription import Event, EventInvalid, SignatureInvalid
from tests.stripe_stand_in import KEY, SECRET, SOLD, event_body, signed

BODY = event_body("evt_1", "invoice.paid", "cus_1")


def read(body: bytes, signature: str | None) -> Event:
    return Stripe(KEY, SECRET, SOLD, meter="executions").read_event(body, signature)


def test_a_signed_event_is_read() -> None:
    assert read(BODY, signed(BODY)["stripe-signature"]) == Event("evt_1", "invoice.paid", "cus_1")
    nobody = event_body("evt_2", "a.new.kind", None)
    assert read(nobody, signed(nobody)["stripe-signature"]) == Event("evt_2", "a.new.kind", None)
    spelt_out = event_body("evt_3", "invoice.paid", None).replace(b'"customer": null', b'"customer": {"id": "cus_9"}')
    assert read(spelt_out, signed(spelt_out)["stripe-signature"]).customer_id == "cus_9"


@pytest.mark.parametrize("late_s", [-310, 320])
def test_old_and_postdated_signatures_are_refused(late_s: int) -> None:
    with pytest.raises(SignatureInvalid):
        read(BODY, signed(BODY, at=time.time() + late_s)["stripe-signature"])


def test_a_signature_is_good_for_minutes() -> None:
    assert read(BODY, signed(BODY, at=time.time() - 240)["stripe-signature"]).id == "evt_1"


@pytest.mark.parametrize(
    "signature", [None, "", "t=,v1=", "t=x,v1=y", "v1=00", "nonsense", "t=1,v1=" + "0" * 64, "é=ü"]
)
def test_bad_signatures_are_refused(signature: str | None) -> None:
    with pytest.raises(SignatureInvalid):
        read(BODY, signature)


def test_another_secret_another_body_and_odd_octets_are_refused() -> None:
    for body, headers in (
        (BODY, signed(BODY, secret="whsec_another")),
        (BODY + b" ", signed(BODY)),
        (b"\xff", signed(BODY)),
    ):
        with pytest.raises(SignatureInvalid):
            read(body, headers["stripe-signature"])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b"{}", json.dumps({"object": "event", "id": "evt_1", "type": "x"}).encode()]
)
def test_what_is_signed_and_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(EventInvalid):
        read(body, signed(body)["stripe-signature"])
