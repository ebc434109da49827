"""The forms of keys and tokens (protocol 4.1 and 4.5)."""

import pytest

from app.accounts.environments import NameInvalid, slug_of
from app.accounts.keys import bearer_of, hash_of_token, without_prefix
from app.accounts.login import csrf_token_of, is_same_token, network_of

HASHED = "b2ed992186a5cb19f6668aade821f502c1d00970dfd0e35128d51bac4649916c"


def test_the_bearer_of_a_key_is_what_sdks_send() -> None:
    assert bearer_of("signkey-prod-12345678") == HASHED
    assert bearer_of("12345678") == HASHED


@pytest.mark.parametrize("token", [HASHED, HASHED.upper(), f"signkey-prod-{HASHED}", f"signkey-branch-{HASHED}"])
def test_prefix_and_case_of_a_token_do_not_matter(token: str) -> None:
    assert hash_of_token(token) == hash_of_token(HASHED)


def test_only_one_prefix_is_taken_off() -> None:
    assert without_prefix("signkey-prod-signkey-prod-ab") == "signkey-prod-ab"
    assert without_prefix("signkey--ab") == "signkey--ab"


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Production", "production"), ("  Étés & Co. ", "etes-co"), ("a--b__c", "a-b-c"), ("x" * 90, "x" * 48)],
)
def test_slugs_are_plain(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_a_name_without_latin_letters_still_gets_a_slug() -> None:
    assert slug_of("東京").startswith("x-")


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\x00b"])
def test_names_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        slug_of(name)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2ff::1", "2001:db8:1:200::/56"),
        ("fe80::1%eth0", "fe80::/56"),
        ("", "unknown"),
        ("a unix socket", "unknown"),
    ],
)
def test_addresses_count_by_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_csrf_tokens_belong_to_one_session_and_empty_ones_to_none() -> None:
    assert csrf_token_of("one") != csrf_token_of("two")
    assert is_same_token(csrf_token_of("one"), csrf_token_of("one"))
    assert not is_same_token(csrf_token_of("one"), csrf_token_of("two"))
    assert not is_same_token("", "")
