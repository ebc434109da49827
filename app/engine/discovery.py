"""Finds the apps of a developer's machine (`stepwell dev`): the URLs that were named, and the usual ports and paths.

Every few seconds each candidate is asked with a GET; what answers as an SDK is synced. Only loopback is looked at, and
only in dev mode. Known apps are asked again, so that a function just written is there without a restart.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from app.adapters.http import Caller, CallFailed
from app.domain.errors import Outside
from app.domain.scope import Scope
from app.engine.sync import Synced, SyncFailed, sync_app
from app.store.db import CONNECTION_LOST, Pool

log = logging.getLogger(__name__)

#: Where apps usually listen and serve (feature-semantics A3).
PORTS = (80, 443, *range(3000, 3011), 3030, 4321, 5000, 5173, 8000, 8080, 8081, 8787, 8888, *range(8910, 8916))
PATHS = ("/api/inngest", "/x/inngest", "/.netlify/functions/inngest", "/.redwood/functions/inngest")
_EVERY_S = 5.0
_PATIENCE_S = 2.0


@dataclass(slots=True)
class Discovery:
    """`urls` were named by the developer; `scans` adds the usual places. `own_port` is ours and never asked."""

    pool: Pool
    caller: Caller
    scope: Scope
    urls: tuple[str, ...]
    scans: bool
    own_port: int
    _found: set[str] = field(default_factory=set)
    _told: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.once()
            except (Outside, *CONNECTION_LOST) as error:
                log.warning("apps are looked for again later", extra={"error": repr(error)})
            await asyncio.sleep(_EVERY_S)

    async def once(self) -> None:
        """One look at every place."""
        if self.scans:
            await asyncio.gather(*(self._scan(port) for port in PORTS if port != self.own_port))
        for url in (*self.urls, *sorted(self._found - set(self.urls))):
            await self._sync(url)

    async def _scan(self, port: int) -> None:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 0.5)
        except (OSError, TimeoutError):
            self._found = {url for url in self._found if f":{port}/" not in url}
            return
        writer.close()
        for path in PATHS:
            url = f"http://127.0.0.1:{port}{path}"
            if url not in self._found and await self._is_app(url):
                self._found.add(url)
                return

    async def _is_app(self, url: str) -> bool:
        try:
            answer = await self.caller.call("GET", url, headers={}, body=b"", timeout_s=_PATIENCE_S)
        except CallFailed:
            return False
        return answer.status == 200 and "x-inngest-sdk" in answer.headers

    async def _sync(self, url: str) -> None:
        """Sync one app; say something only when the outcome is another one than before."""
        result = await sync_app(self.pool, self.caller, self.scope, url, server_kind="dev", keys=[])
        outcome = "synced" if isinstance(result, Synced) else result.message
        if self._told.get(url) == outcome and not (isinstance(result, Synced) and result.is_modified):
            return
        self._told[url] = outcome
        match result:
            case Synced():
                log.info("app synced", extra={"url": url, "added": len(result.added), "changed": len(result.changed)})
            case SyncFailed():
                log.warning("app not synced", extra={"url": url, "reason": result.message, "fix": result.fix})
