"""What a search text means, told from the text alone."""

import pytest

from app.domain.ids import parse_ulid
from app.reads.run_search import Search, read_search, uses

ULID = "01KAQ7M4VXE8T2R6H9BZC3WDNP"


@pytest.mark.parametrize("text", [ULID, f"  {ULID} ", "7d9f5f0e-3c1b-4f6e-9c38-0f7e3f5f1f11"])
def test_ids_are_known_by_their_shape(text: str) -> None:
    assert read_search(text).ids
    assert read_search(text).words == "Run or event ID"


@pytest.mark.parametrize("text", ["order-1234", "event-7", "customer_5", "12345", "k:v/2", "key: with spaces == odd"])
def test_one_word_is_a_key_and_key_makes_anything_one(text: str) -> None:
    assert read_search(text) == Search(key=text.removeprefix("key:").strip())


@pytest.mark.parametrize(
    "text",
    ["event.data.total > 100", "output.ok == false", "event.data.vip", "has(event.user.id)", '"a" in event.data.l'],
)
def test_an_expression_is_one_when_it_can_be_worked_out(text: str) -> None:
    assert read_search(text) == Search(expression=text)


@pytest.mark.parametrize(("text", "position"), [("event.data.total >", 18), ("run.id == 1", 0), ("output.ok = 1", 10)])
def test_a_mistake_has_a_sentence_and_a_place(text: str, position: int) -> None:
    found = read_search(text)
    assert found.problem
    assert found.position == position
    assert found.words == ""


def test_bulk_names_an_action() -> None:
    assert read_search(f"bulk:{ULID}").bulk == parse_ulid(ULID)
    assert read_search("bulk:nonsense").problem
    assert read_search("key:").problem


@pytest.mark.parametrize(
    "text", ["", "  ", "'; drop table runs; --", "a" * 5000 + " == 1", "{{event.id}}", "\ud800 == 1"]
)
def test_nothing_and_nonsense_never_raise(text: str) -> None:
    read_search(text)


def test_an_expression_says_what_it_needs() -> None:
    assert (uses("event.data.a == 1", "event"), uses("event.data.a == 1", "output")) == (True, False)
    assert (uses("output.a || event.b", "event"), uses("output.a || event.b", "output")) == (True, True)
