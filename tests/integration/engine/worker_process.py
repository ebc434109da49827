"""A worker in a process of its own, with a pretended app inside:

    python -m tests.integration.engine.worker_process DB REDIS NAME DIARY SPEED

What an app does stands in the function's name: `two…` has a step before its result, anything else answers at once. Every
call lasts a moment, so that slots are held while others want them. It lives until it is killed, or its parent is.

SPEED is how many seconds pass by the database's clock in one of ours. The diary is a file with a line for each round of its work loop (`round BEGAN ENDED`) and for each beat of its event loop
(`beat AT`), seconds since the epoch: what a free slot's worker could have done about it (slot_log.py).
"""

import asyncio
import os
import random
import sys
import time
from typing import Any

from app.adapters.redis import Bell
from app.domain.ids import EnvironmentId
from app.engine.catalogue import Catalogue
from app.engine.engine import Engine, EngineSettings
from app.store.db import open_engine_pool
from tests.integration.engine.world import Apps, Call, ops, ran, result

LEASE_S, RENEW_S = 6.0, 1.0
#: Seconds between two beats of an event loop that gets its share of the machine.
BEAT_S = 0.05
_LONGEST_CALL_S = 0.02


class AnyApp(Apps):
    """Answers for every function there is."""

    async def call(self, method: str, url: str, **more: Any) -> Any:
        slug = url.partition("fnId=")[2].partition("&")[0]
        self.scripts.setdefault(slug, _answer)
        return await super().call(method, url, **more)


async def _answer(call: Call) -> Any:
    await asyncio.sleep(random.random() * _LONGEST_CALL_S)
    return ops(ran("a")) if call.slug.startswith("two") and not call.steps else result()


class Diarist(Engine):
    """An engine that notes its rounds. Written at once, so that a kill loses nothing."""

    diary: int = -1

    async def _round(self) -> float:
        began = time.time()
        try:
            return await super()._round()
        finally:
            os.write(self.diary, f"round {began:.6f} {time.time():.6f}\n".encode())

    async def beat(self) -> None:
        """Note that the event loop lives."""
        while True:
            os.write(self.diary, f"beat {time.time():.6f}\n".encode())
            await asyncio.sleep(BEAT_S)


async def main() -> None:
    """Work until killed; the parent's end is the end of standard input."""
    url, redis, name, diary, speed = sys.argv[1:]
    pool, cold = await open_engine_pool(url, size=4), await open_engine_pool(url, size=3)

    async def keys(_environment: EnvironmentId) -> list[str]:
        return []

    settings = EngineSettings(name=name, lease_s=LEASE_S * int(speed), renew_s=RENEW_S, is_signed=False)
    engine = Diarist(pool, cold, AnyApp(), Bell(redis), Catalogue(pool, keys), settings)
    engine.diary = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    await engine.start()
    beats = asyncio.create_task(engine.beat())
    await asyncio.to_thread(sys.stdin.buffer.read)
    beats.cancel()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
