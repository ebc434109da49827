"""Stored JSON as a bounded tree."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.web.json_tree import BREADTH, NODES, STRING, Node, parse_tree


def root_of(text: str) -> Node:
    root = parse_tree(text).root
    assert root is not None
    return root


def count(node: Any) -> Any:
    return 1 + sum(count(child) for child in node.children)


def test_numbers_keep_their_digits() -> None:
    root = root_of('{"a": 1.10, "b": 1152921504606846977, "c": 1e400}')
    assert [child.text for child in root.children] == ["1.10", "1152921504606846977", "1e400"]


def test_depth_breadth_and_size_are_bounded() -> None:
    deep = root_of("[" * 50 + "]" * 50)
    wide = root_of(json.dumps(list(range(5000))))
    square = root_of(json.dumps([[0] * 90] * 90))
    assert count(deep) < 20
    assert len(wide.children) == BREADTH + 1
    assert wide.children[-1].text == "4,900 more"
    assert count(square) <= NODES + 200


def test_long_strings_are_cut_and_say_how_long_they_are() -> None:
    node = root_of(json.dumps("x" * 10_000))
    assert node.text.startswith("x" * STRING + "…")
    assert "10,000" in node.text


def test_text_that_is_no_json_is_shown_as_text() -> None:
    assert parse_tree("<html>").plain == "<html>"
    assert parse_tree("[" * 100_000).root is None


def test_empty_objects_and_lists_are_plain_values() -> None:
    assert [root_of(text).text for text in ("{}", "[]", "null", "true")] == ["{}", "[]", "null", "true"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
@settings(max_examples=100)
def test_any_json_makes_a_tree_of_bounded_size(value: Any) -> None:
    root = root_of(json.dumps(value))
    assert count(root) <= NODES + BREADTH


def test_what_lies_too_deep_says_where_it_is_and_is_drawn_from_there() -> None:
    text = '{"a":[{"b/~":{"c":{"d":{"e":{"f":{"g":1.10}}}}}}]}'
    node = parse_tree(text).root
    while node is not None and node.children:
        node = node.children[0]
    assert node is not None
    assert (node.kind, node.pointer) == ("cut", "/a/0/b~1~0/c/d/e")
    below = parse_tree(text, node.pointer or "")
    assert below.path == ("a", "0", "b/~", "c", "d", "e")
    assert below.root is not None
    assert below.root.children[0].children[0].text == "1.10"


def test_a_pointer_to_nowhere_is_the_whole() -> None:
    for pointer in ("/x", "/a/9", "/a/0/b", "a", "/a/-1", "//"):
        tree = parse_tree('{"a":[1]}', pointer)
        assert tree.path == ()
        assert tree.root is not None
