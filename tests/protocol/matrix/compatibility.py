"""`docs/compatibility.md`: which feature works with which SDK, written from what the apps of a full run observed."""

from collections.abc import Mapping

from tests.processes import ROOT
from tests.protocol.matrix.catalogue import CASES, Case
from tests.protocol.matrix.columns import COLUMNS, MODES, Column
from tests.protocol.matrix.stage import Outcomes
from tests.protocol.server import Mode

PAGE = ROOT / "docs" / "compatibility.md"
_HEAD = """# What works with which SDK

Written by the tests, not by hand: each line is a case that is played by a real app with the published SDK against a running
Stepwell, in dev mode and with signed requests, and judged by what the app observed: which step ran how often, in which order,
with what. The cases are in [`tests/protocol/matrix/cases`](../tests/protocol/matrix/cases).

    STEPWELL_TEST_SIZE=full STEPWELL_WRITE_COMPATIBILITY=1 pytest -n 0 tests/protocol/matrix

✓ as expected in both modes · ✗ not as expected · – the SDK has no such feature

The Go SDK is not in the table: there is no toolchain for it in the tests, its recorded traffic is replayed instead
([`tests/vectors`](../tests/vectors)).

"""


def write(played: Mapping[Mode, Outcomes]) -> None:
    """Write the page; everything must have been played."""
    assert set(played) == set(MODES), "play the full size: STEPWELL_TEST_SIZE=full"
    PAGE.write_text(_HEAD + "\n".join(_table(played)) + "\n", encoding="utf-8")


def _table(played: Mapping[Mode, Outcomes]) -> list[str]:
    columns = list(COLUMNS.values())
    lines: list[str] = []
    for feature in dict.fromkeys(case.feature for case in CASES.values()):
        lines += ["", f"## {feature}", ""] if lines else [f"## {feature}", ""]
        lines.append("| | " + " | ".join(column.title for column in columns) + " |")
        lines.append("|---|" + ":-:|" * len(columns))
        for case in CASES.values():
            if case.feature == feature:
                cells = " | ".join(_cell(played, column, case) for column in columns)
                lines.append(f"| {case.says} | {cells} |")
    return lines


def _cell(played: Mapping[Mode, Outcomes], column: Column, case: Case) -> str:
    if not column.plays(case):
        return "–"
    return "✓" if all(played[mode][column.name, case.name].failure is None for mode in MODES) else "✗"


def rows(text: str) -> dict[str, list[str]]:
    """The cells of a written page by the sentence of their case."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0]:
            found[cells[0]] = cells[1:]
    return found
