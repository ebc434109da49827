import pytest

from app.domain.protocol.addresses import call_url, is_app_address, normalise_url, same_place
from tests.unit.domain.vectors import exchanges


@pytest.mark.parametrize(
    ("registered", "called"),
    [
        ("http://h/api", "http://h/api?fnId=my-app-a%2Fb&stepId=step"),
        ("http://h/api?fnId=old&stepId=step", "http://h/api?fnId=my-app-a%2Fb&stepId=step"),
        ("http://h/api?fnId=old&step=step", "http://h/api?fnId=my-app-a%2Fb&stepId=step"),
        ("https://h:8/api?deployId=d&x=1&y=&probe=trust#top", "https://h:8/api?x=1&y=&fnId=my-app-a%2Fb&stepId=step"),
    ],
)
def test_the_address_always_names_function_and_step(registered: str, called: str) -> None:
    assert call_url(registered, "my-app-a/b", "step") == called
    assert call_url(registered, "my-app-a/b", "f" * 40) == called[: -len("step")] + "f" * 40


def test_addresses_of_registered_functions_lose_the_protocols_parameters() -> None:
    for file in ("dev-ts4.24.0-no-checkpointing", "dev-py0.5.19", "dev-go0.15.1"):
        for _, exchange in exchanges(f"capture-{file}.json"):
            for request in exchange.get("sdk_requests", []):
                if request["path"].startswith("/fn/register"):
                    urls = {
                        normalise_url(f["steps"]["step"]["runtime"]["url"])
                        for f in request["body"]["functions"]
                        if f != "…trimmed"
                    }
                    assert urls == {normalise_url(request["body"]["url"])}


@pytest.mark.parametrize(
    ("url", "normal", "place"),
    [
        ("HTTP://Example.COM:80/Api?fnId=a#x", "http://example.com/Api", "http://example.com/Api"),
        ("https://h:443", "https://h", "https://h"),
        ("https://h:80/a?b=c", "https://h:80/a?b=c", "https://h:80/a?b=c"),
        ("http://127.0.0.1:3000/api", "http://127.0.0.1:3000/api", "http://localhost:3000/api"),
        ("http://0.0.0.0/api", "http://0.0.0.0/api", "http://localhost/api"),
        ("http://[::1]:3000/api", "http://[::1]:3000/api", "http://localhost:3000/api"),
    ],
)
def test_an_address_has_one_form_and_one_place(url: str, normal: str, place: str) -> None:
    assert normalise_url(url) == normal
    assert normalise_url(normal) == normal
    assert same_place(url) == place


@pytest.mark.parametrize(
    "url",
    ["", "h/api", "ftp://h", "http://", "http://u:p@h/", "http://h:x/", "http://h:99999/", "http://h/a b", "http://[h"],
)
def test_what_is_no_address_of_an_app_is_told(url: str) -> None:
    assert not is_app_address(url)
    assert normalise_url(url) == url
