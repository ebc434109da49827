"""The caller of a process that calls apps rarely: opened by its first call, inside the loop that is running then."""

from collections.abc import Mapping

from app.adapters.http import MAX_BODY, Answer, HttpCaller
from app.domain.addresses import Gate


class Outgoing:
    """A `Caller` that costs nothing until it is used. Web processes sync and diagnose apps, and most never do."""

    def __init__(self, gate: Gate) -> None:
        """Remember what may be called."""
        self._gate = gate
        self._caller: HttpCaller | None = None

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        max_body: int = MAX_BODY,
    ) -> Answer:
        """As `Caller.call`."""
        if self._caller is None:
            self._caller = HttpCaller(self._gate)
        return await self._caller.call(method, url, headers=headers, body=body, timeout_s=timeout_s, max_body=max_body)

    async def close(self) -> None:
        """Give up all connections; the next call opens them anew."""
        caller, self._caller = self._caller, None
        if caller is not None:
            await caller.close()
