"""Keep the machine's own settings out of the tests."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("INNGEST_", "STEPWELL_SDK_")):
            monkeypatch.delenv(name)
