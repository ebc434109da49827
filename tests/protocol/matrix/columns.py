"""The columns of the matrix: each SDK in each way of using it, and which optional features it has."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

from tests.processes import our_command
from tests.protocol import node
from tests.protocol.matrix.catalogue import FUNCTIONS, Case
from tests.protocol.matrix.script import Scripted
from tests.protocol.server import Mode

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, eq=False)
class Column:
    """One SDK used in one way."""

    name: str
    title: str
    command: Callable[[], list[str]]
    has: frozenset[str]
    prepare: Callable[[], None] = lambda: None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def app_id(self) -> str:
        """The id its app registers under."""
        return f"matrix-{self.name}"

    def plays(self, case: Case) -> bool:
        """Whether the SDK has what a case needs."""
        return case.needs <= self.has

    def functions(self) -> list[Scripted]:
        """The functions its app declares."""
        return [function for function in FUNCTIONS.values() if function.needs <= self.has]


_PYTHON = frozenset({"flow", "infer", "logger"})
_NPM = frozenset(
    {"flow", "infer", "logger", "race", "settled", "signal", "fetch", "wrap", "match", "js", "streaming", "fields"}
)


def _python(module: str) -> Callable[[], list[str]]:
    return lambda: our_command(f"tests.protocol.apps.{module}")


def _npm(*folders: str) -> Callable[[], list[str]]:
    return lambda: [*node.node(), str(node.FOLDER.parent.joinpath(*folders))]


COLUMNS = {
    column.name: column
    for column in (
        Column("own", "stepwell", _python("scripted_own"), frozenset({"race", "fields"})),
        Column("pypi", "PyPI inngest, async", _python("scripted_pypi"), _PYTHON | {"streaming"}),
        Column("pypi_sync", "PyPI inngest, sync", _python("scripted_pypi_sync"), _PYTHON),
        Column("npm3", "npm inngest 3", _npm("node3", "scripted_app.mjs"), _NPM, lambda: node.install(node.FORMER)),
        Column("npm", "npm inngest 4", _npm("node", "scripted_app.mjs"), _NPM | {"defer", "checkpoint"}, node.install),
        Column(
            "npm_plain",
            "npm inngest 4, no checkpointing",
            _npm("node", "scripted_app.mjs"),
            _NPM | {"defer"},
            node.install,
            {"SCRIPTED_CHECKPOINTING": "off"},
        ),
    )
}


def partner_of(column: Column) -> Column:
    """The column whose app plays the other app of an invocation."""
    return COLUMNS["pypi" if column.name == "own" else "own"]
