"""Letters through SMTP, against a mail server of our own on this machine."""

import base64

import pytest

from app.adapters.mail import Letter, MailFailed, Post
from tests.smtp_sink import running_sink

SENDER = "Stepwell <no-reply@stepwell.example>"
LETTER = Letter(
    "ann@example.com", "Grüße · Stepwell", "Follow this:\n\nhttps://stepwell.example/reset/abc_-123\n.\nEnd\n"
)


async def test_a_letter_arrives_as_it_was_written() -> None:
    async with running_sink() as sink:
        await Post(sink.url, SENDER).send(LETTER)
    (arrived,) = sink.letters
    assert (arrived["To"], arrived["From"], arrived["Subject"]) == ("ann@example.com", SENDER, "Grüße · Stepwell")
    assert arrived.get_content().replace("\r\n", "\n") == LETTER.text
    assert arrived["Auto-Submitted"] == "auto-generated"


async def test_who_has_a_password_says_who_they_are() -> None:
    async with running_sink() as sink:
        await Post(f"smtp://me:p%40ss@127.0.0.1:{sink.port}", SENDER).send(LETTER)
    said = next(line for line in sink.said if line.startswith("AUTH PLAIN"))
    assert base64.b64decode(said.split()[2]) == b"\0me\0p@ss"


@pytest.mark.parametrize(
    ("who", "answer", "is_retryable"),
    [
        ("ann@example.com", "550 no such person", False),
        ("ann@example.com", "450 later", True),
        ("AUTH", "535 wrong password", True),
        ("AUTH", "454 not now", True),
    ],
)
async def test_a_refusal_tells_whether_to_try_again(who: str, answer: str, is_retryable: bool) -> None:
    async with running_sink() as sink:
        sink.answers[who] = answer
        with pytest.raises(MailFailed) as failed:
            await Post(f"smtp://me:pass@127.0.0.1:{sink.port}", SENDER).send(LETTER)
    assert failed.value.retryable is is_retryable
    assert sink.letters == []


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    async with running_sink() as sink:
        url = sink.url
    with pytest.raises(MailFailed) as failed:
        await Post(url, SENDER).send(LETTER)
    assert failed.value.retryable


async def test_an_address_cannot_add_headers() -> None:
    async with running_sink() as sink:
        with pytest.raises(MailFailed) as failed:
            await Post(sink.url, SENDER).send(Letter("ann@example.com\r\nBcc: all@example.com", "Hello", "Text"))
    assert not failed.value.retryable
    assert sink.letters == []
