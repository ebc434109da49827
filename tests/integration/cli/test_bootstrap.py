"""`stepwell bootstrap`: the same keys each time, beside a running `up` and without one. Web and workers are stand-ins."""

import json
from pathlib import Path
from typing import Any

from app.supervise.state import free_port
from tests.integration.cli.test_up import Up, run

WORDS = ("--email", "ann@example.com", "--password", "correct horse battery staple", "--organization", "Ann's shop")
PROMISED = {"organization", "environment", "event_key", "signing_key", "base_url", "user"}


def bootstrap(folder: Path, **settings: str) -> dict[str, Any]:
    done = run(folder, "bootstrap", *WORDS, "--environment", "production", "--json", **settings)
    assert done.returncode == 0, done.stderr
    created: dict[str, Any] = json.loads(done.stdout)
    return created


def test_keys_are_the_same_without_a_running_up_beside_one_and_repeated(open_folder: Path) -> None:
    port = free_port()
    alone = bootstrap(open_folder, STEPWELL_PORT=str(port))
    assert alone.keys() >= PROMISED
    assert (alone["organization"], alone["environment"], alone["user"]) == (
        "Ann's shop",
        "production",
        "ann@example.com",
    )

    up = Up(open_folder, port).await_ready()
    try:
        beside, again = bootstrap(open_folder), bootstrap(open_folder)
    finally:
        up.stop()

    assert alone == beside == again
    assert alone["base_url"] == f"http://127.0.0.1:{port}"


def test_a_given_database_is_migrated_and_used(open_folder: Path, database: str) -> None:
    given = {"DATABASE_URL": database, "STEPWELL_SECRET_KEY": "0123456789abcdef" * 4}

    assert bootstrap(open_folder, **given) == bootstrap(open_folder, **given)
    assert list(open_folder.iterdir()) == []


def test_a_weak_password_is_refused_in_one_sentence(open_folder: Path, database: str) -> None:
    words = ("--email", "ann@example.com", "--password", "12345", "--organization", "Shop")
    done = run(open_folder, "bootstrap", *words, DATABASE_URL=database, STEPWELL_SECRET_KEY="0123456789abcdef" * 4)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_an_unreachable_database_is_said_in_one_sentence(open_folder: Path) -> None:
    given = f"postgresql://x:y@127.0.0.1:{free_port()}/z"
    done = run(open_folder, "migrate", DATABASE_URL=given)

    assert done.returncode == 1
    assert "the database cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
