"""Settings: what is read, what is defaulted, and how a wrong value is refused."""

from datetime import timedelta
from pathlib import Path

import pytest

from app.config import KNOWN, Mode, SettingRefused, load, unknown

NEEDED = {
    "DATABASE_URL": "postgresql://owner:pw@db.example:5432/stepwell",
    "REDIS_URL": "redis://:pw@cache.example:6379/0",
    "STEPWELL_SECRET_KEY": "k" * 64,
}


def test_defaults_are_those_that_automation_relies_on() -> None:
    settings = load(NEEDED)

    assert (settings.host, settings.port) == ("127.0.0.1", 8288)
    assert settings.base_url == "http://127.0.0.1:8288"
    assert settings.data_dir == Path(".stepwell")
    assert settings.lease == timedelta(seconds=30)
    assert settings.lease_renewal == timedelta(seconds=5)
    assert settings.max_calls == 256
    assert settings.mode is Mode.SERVER
    assert settings.retry_delay is None
    assert not settings.allow_private_apps


def test_every_missing_setting_is_named_at_once() -> None:
    with pytest.raises(SettingRefused) as refused:
        load({})

    assert refused.value.variables == ("DATABASE_URL", "REDIS_URL", "STEPWELL_SECRET_KEY")
    assert "STEPWELL_SECRET_KEY: expected at least 32 characters" in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://db.example/stepwell"),
        ("DATABASE_URL", "postgresql://db.example:5432"),
        ("REDIS_URL", "http://cache.example"),
        ("STEPWELL_SECRET_KEY", "short"),
        ("STEPWELL_BASE_URL", "stepwell.example"),
        ("STEPWELL_BASE_URL", "https://stepwell.example/path"),
        ("STEPWELL_HOST", "not an address"),
        ("STEPWELL_PORT", "0"),
        ("STEPWELL_PORT", "65536"),
        ("STEPWELL_PORT", "eighty"),
        ("STEPWELL_ALLOW_PRIVATE_APPS", "maybe"),
        ("STEPWELL_HOSTED", "2"),
        ("STEPWELL_RETRY_DELAY_MS", "-1"),
        ("STEPWELL_RETRY_DELAY_MS", "1.5"),
        ("STEPWELL_MODE", "production"),
        ("STEPWELL_WORKERS", "0"),
        ("STEPWELL_WORKER_NAME", "a\nb"),
        ("STEPWELL_MAX_CALLS", "10001"),
        ("STEPWELL_LEASE_SECONDS", "2"),
        ("STEPWELL_CALL_TIMEOUT_SECONDS", "7201"),
        ("STEPWELL_LOG_FORMAT", "xml"),
        ("STEPWELL_LOG_LEVEL", "loud"),
        ("STEPWELL_APP_URLS", "localhost:3000"),
        ("STEPWELL_DISCOVERY", "sometimes"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_was_expected(variable: str, value: str) -> None:
    with pytest.raises(SettingRefused) as refused:
        load(NEEDED | {variable: value})

    expects = next(known.expects for known in KNOWN if known.name == variable)
    assert refused.value.variables == (variable,)
    assert expects in str(refused.value)


def test_a_refused_secret_is_not_repeated_in_the_message() -> None:
    with pytest.raises(SettingRefused) as refused:
        load(NEEDED | {"STEPWELL_SECRET_KEY": "hunter2", "DATABASE_URL": "mysql://root:hunter2@db/x"})

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_usual_spellings_of_a_database_address_become_the_one_of_the_driver(scheme: str) -> None:
    settings = load(NEEDED | {"DATABASE_URL": f"{scheme}://owner:p%40w@db.example/stepwell?sslmode=require"})

    assert settings.database_url == "postgresql://owner:p%40w@db.example/stepwell?sslmode=require"


def test_the_base_address_loses_its_last_slash_and_https_is_noticed() -> None:
    settings = load(NEEDED | {"STEPWELL_BASE_URL": "https://stepwell.example/"})

    assert settings.base_url == "https://stepwell.example"
    assert settings.is_https


def test_a_process_that_listens_everywhere_is_reached_on_loopback_by_default() -> None:
    assert load(NEEDED | {"STEPWELL_HOST": "0.0.0.0"}).base_url == "http://127.0.0.1:8288"
    assert load(NEEDED | {"STEPWELL_HOST": "::"}).base_url == "http://[::1]:8288"


def test_dev_may_call_private_apps_and_the_hosted_service_never() -> None:
    assert load(NEEDED | {"STEPWELL_MODE": "dev"}).allow_private_apps
    assert load(NEEDED | {"STEPWELL_ALLOW_PRIVATE_APPS": "1"}).allow_private_apps
    assert not load(NEEDED | {"STEPWELL_ALLOW_PRIVATE_APPS": "1", "STEPWELL_HOSTED": "1"}).allow_private_apps
    assert not load(NEEDED | {"STEPWELL_MODE": "dev", "STEPWELL_ALLOW_PRIVATE_APPS": "0"}).allow_private_apps


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(NEEDED | {"STEPWELL_PORT": "", "STEPWELL_RETRY_DELAY_MS": " "}).port == 8288


def test_a_retry_delay_of_zero_is_a_delay_and_not_the_table() -> None:
    assert load(NEEDED | {"STEPWELL_RETRY_DELAY_MS": "0"}).retry_delay == timedelta(0)


def test_a_misspelt_setting_is_noticed() -> None:
    assert unknown({"STEPWELL_PROT": "1", "STEPWELL_PORT": "1", "PATH": ""}) == ["STEPWELL_PROT"]


SELLS = {
    "STEPWELL_HOSTED": "1",
    "STEPWELL_STRIPE_KEY": "rk_test_0123456789",
    "STEPWELL_STRIPE_WEBHOOK_SECRET": "whsec_0123456789",
    "STEPWELL_STRIPE_PRICES": "pro=price_a+price_b, business=price_c",
}


def test_only_the_hosted_service_sells_and_only_with_a_key() -> None:
    stripe = load(NEEDED | SELLS).stripe
    assert stripe is not None
    assert stripe.prices == (("pro", "price_a", "price_b"), ("business", "price_c", None))
    assert (stripe.meter, stripe.url) == ("stepwell_executions", None)
    assert load(NEEDED | SELLS | {"STEPWELL_HOSTED": "0"}).stripe is None
    assert load(NEEDED | SELLS | {"STEPWELL_STRIPE_KEY": ""}).stripe is None


def test_a_key_without_what_belongs_to_it_is_refused_at_once() -> None:
    with pytest.raises(SettingRefused) as refused:
        load(NEEDED | {"STEPWELL_HOSTED": "1", "STEPWELL_STRIPE_KEY": "rk_test_0123456789"})
    assert refused.value.variables == ("STEPWELL_STRIPE_WEBHOOK_SECRET", "STEPWELL_STRIPE_PRICES")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STEPWELL_STRIPE_KEY", "not a key"),
        ("STEPWELL_STRIPE_WEBHOOK_SECRET", "short"),
        ("STEPWELL_STRIPE_PRICES", "free=price_a"),
        ("STEPWELL_STRIPE_PRICES", "pro=prod_a"),
        ("STEPWELL_STRIPE_PRICES", "pro=price_a,pro=price_b"),
        ("STEPWELL_STRIPE_PRICES", "pro"),
        ("STEPWELL_STRIPE_METER", "two words"),
        ("STEPWELL_STRIPE_URL", "stripe.example"),
    ],
)
def test_payment_settings_that_cannot_be_used_are_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(SettingRefused) as refused:
        load(NEEDED | SELLS | {variable: value})
    assert refused.value.variables == (variable,)
    assert "0123456789" not in str(refused.value)
