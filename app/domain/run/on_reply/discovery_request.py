"""`DiscoveryRequest`: the SDK's time is up and it knows no step to plan (protocol 17.3)."""

from app.domain.protocol.opcodes import Op
from app.domain.run.turn import Turn


def discovery_request(turn: Turn, _op: Op) -> None:
    """Call again. How often this may happen without a new step is bounded in `finish.py`."""
    turn.asks_again = True
