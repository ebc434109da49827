"""After a request has changed a run: wake who may go on, and tell the pages."""

from app.adapters.redis import RUN_CHANGED
from app.domain.ids import to_ulid
from app.engine.apply import Entry
from app.web.site import Site


def tell(site: Site, entry: Entry) -> None:
    """Say that the run changed. Hints only: losing one costs a second (rule 17)."""
    facts = entry.facts
    site.bell.publish(f"{RUN_CHANGED}{facts.scope.environment_id}", to_ulid(entry.run.id))
    if entry.emits:
        site.bell.ring()
    elif entry.readies:
        site.bell.ring([facts.lane_id.bytes])
