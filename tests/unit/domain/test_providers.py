"""Login providers as an operator names them, and which addresses they vouch for."""

import json
from typing import Any

import pytest

from app.config import SettingRefused, load
from app.domain.providers import (
    GITHUB,
    ProvidersInvalid,
    is_fit_url,
    parse_providers,
    trusted_email,
    trusted_github_email,
)
from tests.unit.test_config import NEEDED

GOOD = {"issuer": "https://id.example", "client_id": "web", "client_secret": "hush-hush-hush", "label": "Acme"}


def parsed(*entries: dict[str, Any], allows_loopback: bool = False) -> Any:
    return parse_providers(json.dumps(entries), allows_loopback=allows_loopback)


@pytest.mark.parametrize(
    ("issuer", "key", "label", "kind", "icon"),
    [
        ("https://accounts.google.com", "google", "Google", "openid", "google"),
        ("https://gitlab.com", "gitlab", "GitLab", "openid", "gitlab"),
        ("https://login.microsoftonline.com/0f3c/v2.0", "microsoft", "Microsoft", "openid", "microsoft"),
        (GITHUB, "github", "GitHub", "github", "github"),
        (f"{GITHUB}/", "github", "GitHub", "github", "github"),
    ],
)
def test_well_known_issuers_need_no_label(issuer: str, key: str, label: str, kind: str, icon: str) -> None:
    found = parsed({"issuer": issuer, "client_id": "web", "client_secret": "x"})[0]
    assert (found.key, found.label, found.kind, found.icon) == (key, label, kind, icon)


def test_what_is_not_said_comes_from_the_label_and_what_is_said_wins() -> None:
    first, second = parsed(
        {**GOOD, "label": "Our GitLab (Oslo)"},
        {"issuer": "https://accounts.google.com", "client_id": "web", "label": "Work", "key": "work"},
    )
    assert (first.key, first.icon, first.can_prove_again) == ("our-gitlab-oslo", "gitlab", True)
    assert (second.key, second.label, second.client_secret) == ("work", "Work", "")


def test_an_issuer_is_kept_letter_by_letter() -> None:
    assert parsed({**GOOD, "issuer": "https://id.example/realms/main/"})[0].issuer == "https://id.example/realms/main/"


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([{**GOOD, "issuer": "http://id.example"}], "provider 1 whose issuer is not an https:// address"),
        ([{**GOOD, "issuer": "http://127.0.0.1:9"}], "provider 1 whose issuer is not an https:// address"),
        ([{**GOOD, "issuer": "https://me:pw@id.example"}], "provider 1 whose issuer is not an https:// address"),
        ([{**GOOD, "issuer": "https://id.example?x=1"}], "provider 1 whose issuer is not an https:// address"),
        ([{**GOOD, "issuer": "https://id.example#x"}], "provider 1 whose issuer is not an https:// address"),
        ([{**GOOD, "issuer": ""}], "provider 1 whose issuer is not an https:// address"),
        ([{**GOOD, "label": ""}], "provider 1 without a label of 1 to 40 characters"),
        ([{**GOOD, "label": "ø"}], "provider 1 without a key"),
        ([{**GOOD, "key": "Not/a key"}], "provider 1 without a key"),
        ([{**GOOD, "client_id": ""}], "provider 1 without client_id"),
        ([GOOD, {"issuer": GITHUB, "client_id": "web"}], "provider 2 without client_secret"),
        ([{**GOOD, "kind": "saml"}], "provider 1 of a kind other than openid and github"),
        ([{**GOOD, "client_secret": "two\nlines"}], "provider 1 with a client_secret that cannot be one"),
        ([{**GOOD, "client_secret": 7}], "provider 1 with a client_secret that cannot be one"),
        ([{**GOOD, "secret": "misspelt"}], "provider 1 with 1 unknown field"),
        (["text"], "provider 1 that is not an object"),
        ([GOOD, {**GOOD, "issuer": "https://b.example"}], "two providers with the same key"),
        ([GOOD, {**GOOD, "label": "B"}], "two providers with the same issuer"),
        ([{**GOOD, "label": str(n), "issuer": f"https://{n}.example"} for n in range(9)], "more than 8 providers"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_by_entry_without_its_values(entries: list[Any], sentence: str) -> None:
    with pytest.raises(ProvidersInvalid) as refused:
        parse_providers(json.dumps(entries), allows_loopback=False)
    assert sentence in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "{}", "7", '"x"', "[" * 100_000])
def test_text_that_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ProvidersInvalid):
        parse_providers(text, allows_loopback=False)


@pytest.mark.parametrize(
    ("url", "fits", "fits_here"),
    [
        ("https://id.example/token", True, True),
        ("https://id.example/token?tenant=1", True, True),
        ("http://127.0.0.1:8080/token", False, True),
        ("http://[::1]:8080/token", False, True),
        ("http://localhost/token", False, True),
        ("http://10.0.0.1/token", False, False),
        ("http://localhost.example/token", False, False),
        ("file:///etc/passwd", False, False),
        ("javascript:alert(1)", False, False),
        ("https://id.example:99999/", False, False),
        ("https://id.example/\r\nx: y", False, False),
        ("https://", False, False),
    ],
)
def test_providers_are_spoken_to_over_tls_or_on_this_machine(url: str, fits: bool, fits_here: bool) -> None:
    assert is_fit_url(url, allows_loopback=False) is fits
    assert is_fit_url(url, allows_loopback=True) is fits_here


@pytest.mark.parametrize(
    ("claims", "email"),
    [
        ({"email": "ada@example.com", "email_verified": True}, "ada@example.com"),
        ({"email": "ada@example.com", "email_verified": "true"}, "ada@example.com"),
        ({"email": "ada@example.com", "email_verified": False}, ""),
        ({"email": "ada@example.com", "email_verified": "false"}, ""),
        ({"email": "ada@example.com", "email_verified": 1}, ""),
        ({"email": "ada@example.com"}, ""),
        ({"email_verified": True}, ""),
        ({"email": ["ada@example.com"], "email_verified": True}, ""),
        ({"email": "ada example", "email_verified": True}, ""),
        ({"email": "ada@exa\u0000mple.com", "email_verified": True}, ""),
    ],
)
def test_only_an_address_that_the_provider_vouches_for_counts(claims: dict[str, object], email: str) -> None:
    assert trusted_email(claims) == email


def test_github_gives_the_confirmed_primary_address_or_another_confirmed_one() -> None:
    def entry(name: str, *, verified: object, primary: object = False) -> dict[str, object]:
        return {"email": f"{name}@example.com", "verified": verified, "primary": primary}

    both = [entry("a", verified=True), entry("b", verified=True, primary=True)]
    assert trusted_github_email(both) == "b@example.com"
    assert (
        trusted_github_email([entry("a", verified=True), entry("b", verified=False, primary=True)]) == "a@example.com"
    )
    assert trusted_github_email([entry("a", verified="yes"), {"verified": True}, "a", None]) == ""


def test_the_setting_names_the_entry_and_no_secret_is_ever_shown() -> None:
    with pytest.raises(SettingRefused) as refused:
        load({**NEEDED, "STEPWELL_LOGIN_PROVIDERS": json.dumps([{**GOOD, "client_id": ""}])})
    assert "STEPWELL_LOGIN_PROVIDERS" in str(refused.value)
    assert "provider 1 without client_id" in str(refused.value)
    assert "hush" not in str(refused.value)
    settings = load({**NEEDED, "STEPWELL_LOGIN_PROVIDERS": json.dumps([GOOD])})
    assert settings.login_providers[0].client_secret == "hush-hush-hush"
    assert "hush" not in repr(settings)


def test_where_nobody_signs_in_there_are_no_providers_and_with_tls_none_goes_without() -> None:
    here = json.dumps([{**GOOD, "issuer": "http://127.0.0.1:8080"}])
    assert load({**NEEDED, "STEPWELL_MODE": "dev", "STEPWELL_LOGIN_PROVIDERS": here}).login_providers == ()
    assert len(load({**NEEDED, "STEPWELL_LOGIN_PROVIDERS": here}).login_providers) == 1
    with pytest.raises(SettingRefused):
        load({**NEEDED, "STEPWELL_BASE_URL": "https://s.example", "STEPWELL_LOGIN_PROVIDERS": here})
