"""What htmx says about a request."""

from app.web.hx import Hx


def test_a_boosted_visit_wants_the_whole_page() -> None:
    hx = Hx.of({"hx-request": "true", "hx-boosted": "true", "hx-request-type": "full"})
    assert (hx.is_htmx, hx.is_boosted, hx.is_partial) == (True, True, False)


def test_going_back_wants_the_whole_page() -> None:
    hx = Hx.of({"hx-request": "true", "hx-request-type": "partial", "hx-history-restore-request": "true"})
    assert not hx.is_partial


def test_a_fragment_is_given_for_its_target_only() -> None:
    hx = Hx.of({"hx-request": "true", "hx-request-type": "partial", "hx-target": "aside#detail"})
    assert hx.wants("detail")
    assert not hx.wants("list")


def test_a_browser_without_scripts_wants_pages() -> None:
    assert not Hx.of({}).wants("list")
