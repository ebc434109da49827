"""Sealing: only the right tenant, with the right key, reads a secret again."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.sealing import CannotOpen, Sealer
from app.domain.ids import AccountId, EnvironmentId
from app.domain.scope import Scope

SCOPE = Scope(AccountId(uuid4()), EnvironmentId(uuid4()))
OLD, NEW = "the old secret key of this server", "the new secret key of this server"


@given(st.text(max_size=200))
def test_a_sealed_secret_opens_to_the_same_text(secret: str) -> None:
    sealer = Sealer(NEW)
    sealed = sealer.seal(secret, SCOPE)
    assert sealer.open(sealed, SCOPE) == secret
    assert sealer.seal(secret, SCOPE) != sealed


@pytest.mark.parametrize(
    "scope",
    [
        Scope(AccountId(uuid4()), SCOPE.environment_id),
        Scope(SCOPE.account_id, EnvironmentId(uuid4())),
        Scope(AccountId(SCOPE.environment_id), EnvironmentId(SCOPE.account_id)),
    ],
)
def test_another_tenant_cannot_open(scope: Scope) -> None:
    sealer = Sealer(NEW)
    with pytest.raises(CannotOpen):
        sealer.open(sealer.seal("secret", SCOPE), scope)


def test_every_changed_byte_is_noticed() -> None:
    sealer = Sealer(NEW)
    sealed = sealer.seal("secret", SCOPE)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(CannotOpen):
            sealer.open(bytes(changed), SCOPE)
    for length in range(len(sealed)):
        with pytest.raises(CannotOpen):
            sealer.open(sealed[:length], SCOPE)


def test_a_new_key_seals_while_the_old_one_still_opens() -> None:
    sealed = Sealer(OLD).seal("secret", SCOPE)
    both = Sealer(NEW, older=[OLD])
    assert both.open(sealed, SCOPE) == "secret"
    assert not both.is_current(sealed)
    again = both.seal("secret", SCOPE)
    assert both.is_current(again)
    assert Sealer(NEW).open(again, SCOPE) == "secret"
    with pytest.raises(CannotOpen):
        Sealer(NEW).open(sealed, SCOPE)


def test_sealed_bytes_hold_neither_secret_nor_key() -> None:
    sealed = Sealer(NEW).seal("signkey-prod-0123456789", SCOPE)
    assert b"signkey" not in sealed
    assert NEW.encode() not in sealed
