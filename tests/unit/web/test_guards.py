"""Where a request may come from, and where a login may lead."""

import pytest

from app.web.guards import is_own_host, is_same_origin, local_path

HTTPS, HTTP = "https://stepwell.example", "http://127.0.0.1:8288"


@pytest.mark.parametrize(
    ("site", "origin", "host", "base_url", "allowed"),
    [
        ("same-origin", HTTPS, "stepwell.example", HTTPS, True),
        ("same-origin", "http://localhost:8288", "localhost:8288", HTTP, True),
        ("none", None, "stepwell.example", HTTPS, True),
        ("cross-site", "https://evil.example", "stepwell.example", HTTPS, False),
        ("cross-site", HTTPS, "stepwell.example", HTTPS, False),
        ("same-site", "https://blog.stepwell.example", "stepwell.example", HTTPS, False),
        ("", HTTPS, "stepwell.example", HTTPS, False),
        (None, HTTPS, "stepwell.example", HTTPS, True),
        (None, HTTPS, "10.0.0.1:8288", HTTPS, True),
        (None, "http://shop.lan:8288", "shop.lan:8288", HTTP, True),
        (None, "http://stepwell.example", "stepwell.example", HTTPS, False),
        (None, "https://evil.example", "stepwell.example", HTTPS, False),
        (None, "https://stepwell.example.evil.example", "stepwell.example", HTTPS, False),
        (None, "http://127.0.0.1:9999", "127.0.0.1:8288", HTTP, False),
        (None, "null", "stepwell.example", HTTPS, False),
        (None, "", "", HTTPS, False),
        (None, None, "stepwell.example", HTTPS, True),
    ],
)
def test_unsafe_requests_must_come_from_our_own_pages(
    site: str | None, origin: str | None, host: str, base_url: str, allowed: bool
) -> None:
    assert is_same_origin(site=site, origin=origin, host=host, base_url=base_url) is allowed


@pytest.mark.parametrize(
    "path", ["/", "/env/production/runs?status=failed&last=24h", "/env/x/event-types/shop/order%2Fpaid", "/a//b"]
)
def test_local_paths_are_followed(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "env",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\tevil",
        "/a\r\nset-cookie: x=1",
        "/\x00",
        " /x",
        "/login",
        "/login?next=/login",
        "/logout",
        "/" + "a" * 2000,
    ],
)
def test_anything_else_leads_to_the_start(path: str | None) -> None:
    assert local_path(path) == "/"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8288", True),
        ("[::1]:8288", True),
        ("localhost:8288", True),
        ("LOCALHOST.", True),
        ("stepwell:8288", True),
        ("shop.localhost", True),
        ("host.docker.internal:8288", True),
        ("my-laptop.example:8288", True),
        ("rebound.example:8288", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8288", False),
    ],
)
def test_in_dev_mode_a_stranger_cannot_borrow_our_address(host: str, own: bool) -> None:
    assert is_own_host(host, "http://my-laptop.example:8288") is own
