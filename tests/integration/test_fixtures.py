"""The fixtures themselves: databases are apart from each other, and Valkey starts empty."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import redis


def value(url: str, statement: str) -> Any:
    """Run one statement and give its first value."""

    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_two_databases_do_not_see_each_other(new_database: Callable[[], str]) -> None:
    first, second = new_database(), new_database()
    value(first, "create table only_here (id int)")

    assert value(first, "select to_regclass('only_here') is not null") is True
    assert value(second, "select to_regclass('only_here') is null") is True


def test_a_module_has_one_database(database: str, new_database: Callable[[], str]) -> None:
    assert value(database, "select current_database()") != value(new_database(), "select current_database()")


def test_valkey_is_empty_at_the_start_of_a_test_and_of_one_process_only(redis_url: str, worker_number: int) -> None:
    client = redis.Redis.from_url(redis_url)

    assert client.dbsize() == 0
    client.set("left", "behind")
    assert redis_url.endswith(f"/{worker_number}")


def test_what_the_previous_test_left_in_valkey_is_gone(redis_url: str) -> None:
    assert redis.Redis.from_url(redis_url).get("left") is None
