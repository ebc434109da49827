"""Keep the machine's own settings out of the tests, and let them find their world under any way of importing."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("INNGEST_", "STEPWELL_SDK_")):
            monkeypatch.delenv(name)
