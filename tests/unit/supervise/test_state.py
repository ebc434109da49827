"""The state folder: where it lies, who may read it, and who holds it."""

import multiprocessing
import os
import socket
import stat
from pathlib import Path

import pytest

from app.supervise.identity import ServerUser
from app.supervise.state import SYSTEM_STATE, Running, State, StateLocked, data_folder, is_free

AS_WE_ARE = ServerUser(None, None)
STRANGER = ServerUser(os.geteuid() + 4321, os.getegid() + 4321)
NOTE = Running(1, "up", "postgresql://x/y", "redis://x", "http://127.0.0.1:8288", "k" * 64)


def test_the_wanted_folder_is_taken_when_the_server_user_can_walk_to_it(tmp_path: Path) -> None:
    assert data_folder(tmp_path / ".stepwell", AS_WE_ARE) == tmp_path / ".stepwell"


def test_a_folder_inside_a_closed_home_is_replaced_by_one_of_the_system(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)

    first, second = (data_folder(home / name, STRANGER) for name in ("one", "two"))

    assert first.parent == second.parent == SYSTEM_STATE
    assert first != second
    assert first == data_folder(home / "one", STRANGER)


def test_secrets_are_generated_once_and_only_we_may_read_them(tmp_path: Path) -> None:
    first = State(tmp_path, "up", AS_WE_ARE).secrets()

    assert State(tmp_path, "up", AS_WE_ARE).secrets() == first
    assert len(first.secret_key) == 64
    assert State(tmp_path, "dev", AS_WE_ARE).secrets() != first
    assert stat.S_IMODE((tmp_path / "up" / "secrets.json").stat().st_mode) == 0o600


def test_a_second_supervisor_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    first, second = State(tmp_path, "up", AS_WE_ARE), State(tmp_path, "up", AS_WE_ARE)
    first.lock()

    with pytest.raises(StateLocked, match=str(os.getpid())):
        second.lock()
    first.release()
    second.lock()


def test_what_runs_is_told_to_other_commands_as_long_as_the_folder_is_held(tmp_path: Path) -> None:
    holder, other = State(tmp_path, "up", AS_WE_ARE), State(tmp_path, "up", AS_WE_ARE)
    assert other.running() is None
    holder.lock()
    holder.note_running(NOTE)

    assert other.running() == NOTE
    assert stat.S_IMODE((tmp_path / "up" / "run.json").stat().st_mode) == 0o600
    holder.release()
    assert other.running() is None


def _hold_and_die(folder: Path) -> None:
    state = State(folder, "up", AS_WE_ARE)
    state.lock()
    state.note_running(NOTE)
    os._exit(9)


def test_the_note_of_a_killed_supervisor_is_void_and_its_folder_free(tmp_path: Path) -> None:
    killed = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(tmp_path,))
    killed.start()
    killed.join()
    assert killed.exitcode == 9

    state = State(tmp_path, "up", AS_WE_ARE)
    assert state.running() is None
    state.lock()
    assert not (tmp_path / "up" / "run.json").exists()


def test_a_server_keeps_its_port_while_it_is_free(tmp_path: Path) -> None:
    state = State(tmp_path, "up", AS_WE_ARE)
    port = state.port("postgres")

    assert state.port("postgres") == port
    assert state.port("valkey") != port
    assert is_free("127.0.0.1", port)


def test_a_taken_port_is_replaced(tmp_path: Path) -> None:
    state = State(tmp_path, "up", AS_WE_ARE)
    port = state.port("postgres")
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free("127.0.0.1", port)
        assert state.port("postgres") != port
