"""A supervisor to be killed: starts the servers on a folder, commits one row, says so, and waits for its end."""

import asyncio
import sys
from pathlib import Path

import asyncpg

from app.supervise.children import Supervisor
from app.supervise.servers import start_servers
from app.supervise.state import State


async def _leave_behind(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("create table left_behind as select 1 as one")
    await connection.close()


def main(folder: Path) -> None:
    state = State(folder, "up")
    state.lock()
    supervisor = Supervisor(lambda name, line: None)
    servers = start_servers(supervisor, state)
    assert servers.postgres is not None
    asyncio.run(_leave_behind(servers.postgres.url))
    print("ready", flush=True)
    supervisor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
