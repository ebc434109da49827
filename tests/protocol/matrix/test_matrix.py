"""Every case of the matrix in every column that has what it needs; what is asserted stands in `cases`."""

import os
from collections.abc import Callable

import pytest

from tests.protocol.matrix import cases
from tests.protocol.matrix.catalogue import CASES
from tests.protocol.matrix.columns import COLUMNS, MODES
from tests.protocol.matrix.stage import Outcomes
from tests.protocol.server import Mode

assert cases.MODULES

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"


def _to_be_played() -> list[tuple[Mode, str, str]]:
    """Mode, column and case of every test; in small size the columns that can play a case take turns."""
    found: list[tuple[Mode, str, str]] = []
    for number, case in enumerate(CASES.values()):
        able = [column.name for column in COLUMNS.values() if column.plays(case)]
        if IS_FULL:
            found += [(mode, column, case.name) for mode in MODES for column in able]
        else:
            found.append(("signed", able[number % len(able)], case.name))
    return sorted(found)


@pytest.mark.parametrize(("mode", "column", "case"), _to_be_played())
def test_an_app_observes(played: Callable[[Mode], Outcomes], mode: Mode, column: str, case: str) -> None:
    failure = played(mode)[column, case].failure

    if failure is not None:
        pytest.fail(f"{COLUMNS[column].title}: {CASES[case].says}\n{failure}", pytrace=False)
