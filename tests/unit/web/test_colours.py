"""Contrast of the tokens, computed again from the style sheet (WCAG 2.2, 1.4.3 and 1.4.11)."""

import re
from typing import Any

import pytest

from app.web.assets import STATIC

TOKENS = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"--([a-z0-9-]+):\s*light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", (STATIC / "css/tokens.css").read_text()
    )
}
STATES = ("ok", "fail", "run", "wait", "queue", "cancel", "retry")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    a, b = sorted((luminance(one), luminance(other)), reverse=True)
    return (a + 0.05) / (b + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "ink-2", "ink-3", "accent"])
@pytest.mark.parametrize("ground", ["bg", "surface", "sunken", "raised"])
def test_text_can_be_read_on_every_ground(theme: Any, ink: Any, ground: Any) -> None:
    assert contrast(TOKENS[ink][theme], TOKENS[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_states_can_be_read_and_seen(theme: Any, state: Any) -> None:
    assert contrast(TOKENS[state][theme], TOKENS[f"{state}-tint"][theme]) >= 5.5
    for ground in ("bg", "surface", "sunken"):
        assert contrast(TOKENS[f"{state}-bar"][theme], TOKENS[ground][theme]) >= 3


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_borders_of_fields_can_be_seen(theme: Any) -> None:
    assert contrast(TOKENS["line-2"][theme], TOKENS["surface"][theme]) >= 3
