"""The container files name only what exists, and what they start can be started."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_every_path_the_image_copies_exists() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [p for line in lines if line.startswith("COPY ") and "--from" not in line for p in line.split()[1:-1]]
    assert copied
    assert [p for p in copied if not (ROOT / p).exists()] == []


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert users
    assert users[-1] not in {"root", "0"}


def test_every_service_starts_a_command_that_exists() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    own = [s["command"][0] for s in compose["services"].values() if s["image"] == "stepwell:local"]
    assert sorted(own) == ["migrate", "web", "worker"]
    for command in own:
        said = subprocess.run(
            [sys.executable, "-P", "-m", "app.cli", command, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr
