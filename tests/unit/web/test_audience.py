"""Paths tell who asks."""

import pytest

from app.web.audience import Audience, audience_of


@pytest.mark.parametrize(
    ("path", "audience"),
    [
        ("/e/key", Audience.EVENTS),
        ("/fn/register", Audience.SDK),
        ("/v0/runs/x", Audience.SDK),
        ("/v1/runs/x", Audience.SDK),
        ("/invoke/app-fn", Audience.SDK),
        ("/dev", Audience.SDK),
        ("/v2/runs", Audience.API),
        ("/api/v2/runs", Audience.API),
        ("/health", Audience.PROBE),
        ("/", Audience.PERSON),
        ("/env/production/runs", Audience.PERSON),
        ("/events", Audience.PERSON),
        ("/e", Audience.EVENTS),
        ("/v10", Audience.PERSON),
        ("", Audience.PERSON),
    ],
)
def test_the_first_part_of_a_path_decides(path: str, audience: Audience) -> None:
    assert audience_of(path) is audience
