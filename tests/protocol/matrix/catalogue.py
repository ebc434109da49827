"""All functions and cases of the matrix, as the modules in `cases` declare them."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.protocol.matrix.script import Op, Script, Scripted

if TYPE_CHECKING:
    from tests.protocol.matrix.play import Play

FUNCTIONS: dict[str, Scripted] = {}
CASES: dict[str, "Case"] = {}


@dataclass(frozen=True)
class Case:
    """One thing that must be so with every SDK that has what it `needs`."""

    name: str
    """A sentence with underscores."""
    feature: str
    play: Callable[["Play"], Awaitable[None]]
    needs: frozenset[str]

    @property
    def says(self) -> str:
        """The sentence."""
        return self.name.replace("_", " ")


def function(
    function_id: str,
    *script: Op,
    triggers: list[dict[str, str]] | None = None,
    on_failure: Script | None = None,
    needs: Iterable[str] = (),
    kind: str = "function",
    door: dict[str, int] | None = None,
    **options: Any,
) -> Scripted:
    """Declare a function. Unless told otherwise the event of its own name starts it."""
    assert function_id not in FUNCTIONS, function_id
    given = [{"event": f"@@/{function_id}"}] if triggers is None else triggers
    FUNCTIONS[function_id] = Scripted(function_id, script, given, options, on_failure, frozenset(needs), kind, door)
    return FUNCTIONS[function_id]


def case(
    feature: str, *, needs: Iterable[str] = ()
) -> Callable[[Callable[["Play"], Awaitable[None]]], Callable[["Play"], Awaitable[None]]]:
    """Declare a case under a feature of the table."""

    def declare(play: Callable[["Play"], Awaitable[None]]) -> Callable[["Play"], Awaitable[None]]:
        name = play.__name__
        assert name not in CASES, name
        CASES[name] = Case(name, feature, play, frozenset(needs))
        return play

    return declare
