"""`stepwell up` as a process: what it starts, what it starts again, what it leaves. Web and workers are stand-ins."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.supervise.state import State, free_port
from tests.servers import TestServers

WITHIN = 60.0
"""Seconds for anything to happen on a loaded machine."""


class Up:
    """One running `stepwell up`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.lines: list[str] = []
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.cli.stand_in", "up"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ(folder) | {"STEPWELL_PORT": str(port), "STEPWELL_HOST": "127.0.0.1"},
        )
        self.ready_after = 0.0

    def await_line(self, part: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if part in line:
                return line
        raise AssertionError(f"no line with {part!r} in {self.lines}")

    def await_ready(self) -> "Up":
        self.await_line("Stepwell is ready at")
        self.ready_after = time.monotonic() - self.started
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        self.lines += self.process.stdout.readlines()
        self.process.stdout.close()
        return self.process.wait(WITHIN)


def environ(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("STEPWELL_") and "_URL" not in key}
    return kept | {
        "STEPWELL_DATA_DIR": str(folder),
        "STEPWELL_WORKERS": "2",
        "STEPWELL_LOG_FORMAT": "console",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def up(open_folder: Path) -> Iterator[Up]:
    up = Up(open_folder, free_port()).await_ready()
    yield up
    if up.process.poll() is None:
        up.stop()


def children_of(up: Up) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(up.process.pid).children(recursive=True)
    return found


def test_up_starts_everything_tells_others_where_and_leaves_nothing_behind(up: Up) -> None:
    running = State(up.folder, "up").running()
    assert running is not None
    assert running.base_url == f"http://127.0.0.1:{up.port}"
    assert running.database_url.startswith("postgresql://stepwell:")
    started = children_of(up)
    assert len(started) >= 5, "web, two workers, Postgres, Valkey"

    assert up.stop() == 0

    assert [process for process in started if process.is_running()] == []
    assert State(up.folder, "up").running() is None


def test_a_second_start_answers_within_five_seconds(up: Up) -> None:
    assert up.stop() == 0

    again = Up(up.folder, up.port).await_ready()
    assert again.stop() == 0

    assert again.ready_after <= 5.0


def test_a_killed_worker_is_started_again_under_the_same_name(up: Up) -> None:
    line = next((line for line in up.lines if "worker-2" in line), None) or up.await_line("worker-2")
    os.kill(int(line.split()[-1]), signal.SIGKILL)

    assert "worker-2 ended with signal 9; starting it again at once" in up.await_line("ended with")
    assert "worker-2" in up.await_line("worker-2 ")


def test_a_second_up_on_the_same_folder_is_refused_in_one_sentence(up: Up) -> None:
    done = run(up.folder, "up", STEPWELL_PORT=str(free_port()))

    assert done.returncode == 1
    assert "already runs on" in done.stderr
    assert str(up.process.pid) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_refused_before_anything_starts(up: Up, open_folder: Path) -> None:
    done = run(open_folder / "other", "up", STEPWELL_PORT=str(up.port))

    assert done.returncode == 1
    assert f"port {up.port} on 127.0.0.1 is taken" in done.stderr
    assert not (open_folder / "other" / "up" / "postgres").exists()


def test_doctor_beside_a_running_up_finds_it_sound(up: Up) -> None:
    done = run(up.folder, "doctor", "--json", STEPWELL_PORT=str(up.port))

    report = json.loads(done.stdout)
    assert {finding["check"]: finding["verdict"] for finding in report["findings"]} == {
        "settings": "ok",
        "data folder": "ok",
        "port": "ok",
        "cookies": "warning",
        "secret key": "ok",
        "database": "ok",
        "clock": "ok",
        "roles": "ok",
        "migrations": "ok",
        "redis": "ok",
    }, report
    assert done.returncode == 0


def run(folder: Path, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        check=False,
        capture_output=True,
        text=True,
        env=environ(folder) | settings,
        timeout=WITHIN,
    )


def test_a_wrong_setting_is_refused_with_its_name_before_anything_starts(open_folder: Path) -> None:
    done = run(open_folder / "state", "up", STEPWELL_PORT="high")

    assert done.returncode == 1
    assert "STEPWELL_PORT: expected a whole number from 1 to 65535; found 'high'." in done.stderr
    assert not (open_folder / "state").exists()


@pytest.mark.parametrize("command", ["web", "worker"])
def test_a_single_process_says_which_settings_it_misses(command: str, open_folder: Path) -> None:
    done = run(open_folder, command)

    assert done.returncode == 1
    for name in ("DATABASE_URL", "REDIS_URL", "STEPWELL_SECRET_KEY"):
        assert f"{name}: expected" in done.stderr


def test_doctor_says_what_to_do_when_nothing_runs_and_leaves_no_folder(open_folder: Path) -> None:
    done = run(open_folder / "state", "doctor")

    assert done.returncode == 1
    assert "Run `stepwell up`, or set DATABASE_URL." in done.stdout
    assert not (open_folder / "state").exists()


def test_doctor_names_an_unreachable_database_and_a_missing_key(open_folder: Path) -> None:
    done = run(
        open_folder,
        *("doctor", "--json"),
        DATABASE_URL=f"postgresql://x:y@127.0.0.1:{free_port()}/z",
        REDIS_URL=f"redis://127.0.0.1:{free_port()}",
    )

    found = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert found["database"]["verdict"] == "fail"
    assert "not reachable" in found["database"]["found"]
    assert found["secret key"]["verdict"] == "fail"
    assert found["redis"]["verdict"] == "warning", "its absence slows us down and loses nothing"


def test_doctor_tells_an_empty_database_from_a_migrated_one(
    servers: TestServers, database: str, redis_url: str
) -> None:
    key = {"STEPWELL_SECRET_KEY": "0123456789abcdef" * 4, "REDIS_URL": redis_url}
    migrated = run(Path(), "doctor", "--json", DATABASE_URL=database, **key)
    empty = run(Path(), "doctor", "--json", DATABASE_URL=servers.database_url("postgres"), **key)

    assert migrated.returncode == 0, migrated.stdout
    schema = next(f for f in json.loads(empty.stdout)["findings"] if f["check"] == "migrations")
    assert (schema["verdict"], schema["advice"]) == ("fail", "Run `stepwell migrate`.")
    assert empty.returncode == 1
