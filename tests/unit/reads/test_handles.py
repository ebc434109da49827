"""What stands for an app or a function in an address."""

from uuid import UUID

import pytest

from app.reads.handles import handle_of, id_in

ID = UUID("0f3b8c52-7a54-4f0e-9a3c-2f7f4f1f0d11")


@pytest.mark.parametrize("name", ["shop", "shop-charge", "a.b_c~1", "9"])
def test_a_plain_name_stands_for_itself(name: str) -> None:
    assert handle_of(name, ID) == name


@pytest.mark.parametrize("name", [None, "", "a/b", "a b", "new", ".", "..", "é", "a?b", "-", "a\n", "x" * 300])
def test_any_other_name_is_replaced_by_the_id(name: str | None) -> None:
    assert handle_of(name, ID) == str(ID)


def test_an_id_is_found_in_a_handle_and_nothing_else_is() -> None:
    assert id_in(str(ID)) == ID
    assert id_in("shop") is None
    assert id_in(str(ID).replace("-", "x")) is None
    assert id_in(ID.hex) is None
