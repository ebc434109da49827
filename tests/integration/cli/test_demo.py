"""`stepwell demo`: the whole of it, real processes and the real sample shop, from nothing to a completed order."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.supervise.state import free_port
from tests.integration.cli.test_up import environ


@pytest.mark.timeout(240)
def test_an_order_goes_through_once_and_the_screen_says_where_to_look(open_folder: Path) -> None:
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "demo", "--exit"],
        check=False,
        capture_output=True,
        text=True,
        env=environ(open_folder) | {"STEPWELL_PORT": str(port), "STEPWELL_WORKERS": "1"},
        timeout=200,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "the run is completed" in done.stdout
    assert re.search(rf"the run +http://127\.0\.0\.1:{port}/env/production/runs/[0-9A-Z]{{26}}", done.stdout)
    assert "login      demo@stepwell.localhost" in done.stdout
    ledger = (open_folder / "demo" / "shop" / "effects.jsonl").read_text(encoding="utf-8").splitlines()
    charges = [line for line in map(json.loads, ledger) if line["step"] == "charge-payment"]
    assert [charge["outcome"] for charge in charges].count("done") == 1
    assert len(charges) == 3, "busy, busy, done"
