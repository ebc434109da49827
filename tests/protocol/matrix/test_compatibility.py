"""The committed table says the truth about which cases there are."""

from tests.protocol.matrix import cases
from tests.protocol.matrix.catalogue import CASES, FUNCTIONS
from tests.protocol.matrix.columns import COLUMNS
from tests.protocol.matrix.compatibility import PAGE, rows

assert cases.MODULES


def test_the_committed_table_names_exactly_the_cases_there_are() -> None:
    assert sorted(rows(PAGE.read_text(encoding="utf-8"))) == sorted(case.says for case in CASES.values())


def test_the_committed_table_has_a_verdict_for_every_column_that_plays_a_case() -> None:
    written = rows(PAGE.read_text(encoding="utf-8"))

    for case in CASES.values():
        for column, cell in zip(COLUMNS.values(), written[case.says], strict=True):
            assert (cell != "–") is column.plays(case), (case.says, column.title)


def test_every_optional_feature_is_one_that_some_sdk_has() -> None:
    known = frozenset[str]().union(*(column.has for column in COLUMNS.values()))

    for needs in [*(case.needs for case in CASES.values()), *(function.needs for function in FUNCTIONS.values())]:
        assert needs <= known
