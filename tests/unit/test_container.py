"""The container files name only what exists, and what they start can be started."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
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


#: Run in a folder that holds only what the wheel holds: everything the processes read is opened once.
_INSIDE = """
import sys
from pathlib import Path
here = Path(sys.argv[1])
import app.main, workers.main
from alembic.config import Config
from alembic.script import ScriptDirectory
from app.accounts.passwords import PasswordRefused, check_password
from app.store.db import statements
from app.store.migrate import MIGRATIONS, newest
from app.web.assets import Assets
from app.web.samples import SAMPLES
from app.web.templates import make_environment
assert Path(app.main.__file__).is_relative_to(here) and Path(workers.main.__file__).is_relative_to(here)
environment = make_environment(Assets())
names = environment.list_templates(extensions=["html"])
for name in names:
    environment.get_template(name)
for sample in SAMPLES.values():
    assert sample.code
named = [name for path in here.glob("app/store/sql/*.sql") for name in statements(path.stem)]
config = Config()
config.set_main_option("script_location", str(MIGRATIONS))
assert ScriptDirectory.from_config(config).get_current_head() == newest()
scripts = [path.read_text() for path in MIGRATIONS.glob("versions/2*.py")]
assert all((MIGRATIONS / "sql" / text.partition('"sql" / "')[2].partition('"')[0]).is_file() for text in scripts)
try:
    check_password("password1234")
    raise SystemExit("the list of common passwords is empty")
except PasswordRefused:
    pass
print(len(names) > 90, len(named) > 50)
"""


def test_what_is_installed_has_every_file_the_processes_need(tmp_path: Path) -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    for package in build["targets"]["wheel"]["packages"]:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(
        [sys.executable, "-P", "-c", _INSIDE, str(tmp_path)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout) == (0, "True True\n"), said.stderr


def test_an_installed_demo_says_where_the_sample_shop_is(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    said = subprocess.run(
        [sys.executable, "-P", "-m", "app.cli", "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, "make demo" in said.stderr) == (1, True)
