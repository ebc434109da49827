"""Settings in words: nothing of an expression is lost, lengths read as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reads.settings_of import pieces, read_config, settings_of, span, triggers_of

CONFIG = """{"id":"shop-charge","name":"charge","triggers":[{"cron":"0 9 * * *","jitter":"30s"}],"steps":{"step":{"id":"step",
"name":"step","runtime":{"type":"http","url":"http://app.test/api/inngest"},"retries":{"attempts":4}}},
"batchEvents":{"maxSize":10,"timeout":"5s","if":"event.data.big"}}"""


@given(st.text(max_size=80))
def test_the_pieces_of_an_expression_are_the_expression(text: str) -> None:
    assert "".join(piece.text for piece in pieces(text)) == text


def test_pieces_tell_paths_texts_numbers_and_operators_apart() -> None:
    kinds = [
        (p.kind, p.text) for p in pieces("event.data.n >= 10 && async.name == 'a \\' b' || true") if p.text.strip()
    ]
    assert kinds == [
        ("k", "event.data.n"), ("x", ">="), ("n", "10"), ("x", "&&"), ("k", "async.name"), ("x", "=="),
        ("s", "'a \\' b'"), ("x", "||"), ("b", "true"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(seconds=10), "10 s"),
        (timedelta(hours=1, minutes=30), "1 h 30 min"),
        (timedelta(days=365), "365 d"),
        (timedelta(milliseconds=1500), "1 s 500 ms"),
        (timedelta(0), "0 s"),
        (datetime(2026, 11, 23, 14, 30, tzinfo=UTC), "until 23 Nov 2026, 14:30 UTC"),
        (None, ""),
    ],
)
def test_lengths_read_as_people_write_them(length: timedelta | datetime | None, words: str) -> None:
    assert span(length) == words


def test_what_was_set_is_no_default_and_the_rest_is() -> None:
    config = read_config(CONFIG)
    assert config is not None
    told = {setting.name: setting for setting in settings_of(config)}
    assert told["Batching"].value == "up to 10 events within 5 s"
    assert [name for name, setting in told.items() if not setting.is_default] == ["Batching", "Batch condition"]
    assert all(setting.help.endswith(".") for setting in told.values())
    assert [(t.kind, t.text, t.jitter, t.next) for t in triggers_of(config)] == [("cron", "0 9 * * *", "30 s", ())]
    (due,) = triggers_of(config, datetime(2026, 11, 23, 14, 30, tzinfo=UTC))
    assert [(at.day, at.hour) for at in due.next] == [(24, 9), (25, 9), (26, 9)]


@pytest.mark.parametrize("raw", ["", "{", "null", '"\\ud800"'])
def test_settings_that_cannot_be_read_are_none(raw: str) -> None:
    assert read_config(raw) is None
