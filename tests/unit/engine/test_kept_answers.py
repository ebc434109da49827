"""What history keeps of an answer that failed: enough to see what answered, nothing that lets anybody in."""

from app.adapters.http import Answer
from app.engine.execute import _kept_of


def test_headers_and_the_beginning_of_the_body_are_kept_and_cookies_are_not() -> None:
    headers = {"server": "nginx", "set-cookie": "session=secret", "x-long": "x" * 5000}
    kept = _kept_of(Answer(502, headers, b"<html>\x00\xff" + b"y" * 9000, 1.0))
    assert kept["headers"] == {"server": "nginx", "x-long": "x" * 256}
    body = kept["body"]
    assert isinstance(body, str)
    assert body.startswith("<html>\ufffd\ufffdy")
    assert len(body) == 2048


def test_many_headers_are_bounded() -> None:
    kept = _kept_of(Answer(500, {f"x-{n}": "1" for n in range(500)}, b"", 1.0))
    assert isinstance(kept["headers"], dict)
    assert len(kept["headers"]) == 24
