"""Which passwords are good enough, and that hashing keeps its promises."""

import asyncio
import unicodedata

import pytest

from app.accounts import passwords
from app.accounts.passwords import PasswordRefused, Passwords, check_password
from app.domain.errors import Outside

CHEAP = {"memory_kib": 19 * 1024, "rounds": 2}


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("", "password_too_short"),
        ("eleven char", "password_too_short"),
        ("x1y2z3" * 22, "password_too_long"),
        ("Password1234", "password_common"),
        ("qwertyuiopasdfghjkl", "password_common"),
        ("aaaaaaaaaaaa", "password_common"),
        ("Someone@Example.com", "password_common"),
    ],
)
def test_weak_passwords_are_refused_with_a_reason(password: str, code: str) -> None:
    with pytest.raises(PasswordRefused) as refused:
        check_password(password, email="someone@example.com")
    assert refused.value.code == code
    assert password == "" or password not in refused.value.message


@pytest.mark.parametrize("password", ["twelve chars", "только длина важна", "🌊 walks by the sea", "x y" * 42])
def test_length_is_all_that_is_asked(password: str) -> None:
    check_password(password)


async def test_the_same_password_from_another_keyboard_is_the_same() -> None:
    passwords = Passwords(**CHEAP)
    stored = await passwords.hash(unicodedata.normalize("NFC", "vingt-et-un étés"))
    assert (await passwords.verify(unicodedata.normalize("NFD", "vingt-et-un étés"), stored)).right
    assert not (await passwords.verify("vingt-et-un etes", stored)).right


async def test_nobodys_hash_is_verified_with_our_parameters_and_never_right() -> None:
    passwords = Passwords(**CHEAP)
    assert "m=19456,t=2,p=1" in passwords.nobodys
    for password in ("", "anything at all"):
        assert not (await passwords.verify(password, None)).right


async def test_a_hash_below_todays_parameters_is_replaced_when_right() -> None:
    stored = await Passwords(**CHEAP).hash("a long walk by the sea")
    dearer = Passwords(memory_kib=20 * 1024, rounds=2)
    verdict = await dearer.verify("a long walk by the sea", stored)
    assert verdict.right
    assert verdict.new_hash is not None
    assert "m=20480" in verdict.new_hash
    assert (await dearer.verify("wrong", stored)).new_hash is None


@pytest.mark.parametrize("price", [{"memory_kib": 8}, {"rounds": 1}])
def test_hashing_below_the_floor_is_refused(price: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="19456"):
        Passwords(**price)


async def test_only_so_many_wait_for_their_password_to_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MOST_WAITING", 3)
    hasher = Passwords(memory_kib=19 * 1024, rounds=2, at_once=1)
    answers = await asyncio.gather(*(hasher.verify("wrong", None) for _ in range(8)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Outside)]
    assert (len(refused), {answer.code for answer in refused}) == (5, {"overloaded"})
    assert not (await hasher.verify("wrong", None)).right
    hasher.close()
