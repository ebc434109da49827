"""`POST /v1/checkpoint/{run}/async`: steps that an SDK saves while its call goes on (protocol 17.2, architecture 5 rule 13)."""

from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.adapters.redis import RUN_CHANGED
from app.domain.errors import Refused
from app.domain.ids import ItemId, derive_item_id, to_ulid
from app.domain.protocol.checkpoint import read_checkpoint
from app.domain.run.effects import FinishRun
from app.domain.run.happenings import Checkpointed
from app.domain.run.state import CALLS
from app.domain.scope import Scope
from app.engine.hot import HotRun
from app.engine.transition import ItemMoved, RunEnded, RunUnknown
from app.web.api.bearer import WITH_KEY
from app.web.api.ids import NotFound, run_id_of
from app.web.site import Site


class StaleDispatch(Refused):
    """Another call has taken over this run: stop, what is not saved yet will be done there."""

    def __init__(self) -> None:
        super().__init__("stale_dispatch")


class StepRefused(Refused):
    """A step or the run's state is larger than allowed; the run has ended with the reason."""

    def __init__(self, code: str) -> None:
        """`code` is that of the run's end."""
        super().__init__(code)


@post("/v1/checkpoint/{run_id:str}/async", status_code=200)
async def checkpoint(
    run_id: FromPath[str],
    request: Request[Any, Any, Any],
    tenant_scope: NamedDependency[Scope],
    site: NamedDependency[Site],
) -> Response[bytes]:
    """Save the steps, count the attempts of the call from 0 again, and let it go on.

    409 when the call is no longer the run's: the item is settled, has another fence, or the run has ended.
    """
    said = read_checkpoint(await request.body())
    wanted = run_id_of(run_id)
    item = _item_id(said.qi_id)

    def happening(hot: HotRun) -> Checkpointed | None:
        for key, known in hot.run.items.items():
            if known.kind in CALLS and (item is None or derive_item_id(wanted, key) == item):
                return Checkpointed(key, said.ops)
        return None

    try:
        entry = await site.changes.change(
            wanted, happening, scope=tenant_scope, item=(item, said.generation_id) if item is not None else None
        )
    except RunUnknown:
        raise NotFound("run not found") from None
    except (RunEnded, ItemMoved):
        raise StaleDispatch from None
    site.bell.publish(f"{RUN_CHANGED}{tenant_scope.environment_id}", to_ulid(wanted))
    if entry.after is not None and entry.after.is_ended:
        # The steps broke a limit of the run; it has ended, and the SDK must hear that nothing more will be saved.
        raise StepRefused(next((e.code or "" for e in entry.effects if isinstance(e, FinishRun)), "output_too_large"))
    return Response(b"", media_type="application/json")


def _item_id(text: str) -> ItemId | None:
    try:
        return ItemId(UUID(text)) if text else None
    except ValueError:
        raise StaleDispatch from None


ROUTER = Router(path="/", dependencies=WITH_KEY, route_handlers=[checkpoint])
