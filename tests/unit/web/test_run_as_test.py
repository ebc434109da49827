"""Tests to copy: code that means what the run was given, whatever a tenant called things."""

import ast

import pytest

from app.web.run_as_test import Told, code_of_test

EVIL = "\"); import os; os.system('x') #\n'''\u2028`${1}`"
TOLD = Told(
    f"shop-{EVIL}", '{"name":"order/placed","data":{"n":1.10,"s":"\\"\'\\u2028"}}', [(EVIL, '{"ok":true}')], EVIL
)


@pytest.mark.parametrize("sdk", ["py:v0.5.18", "stepwell-py:v0.1.0", "go:v0.13.0", ""])
def test_python_holds_hostile_names_as_texts_only(sdk: str) -> None:
    language, code = code_of_test(sdk, TOLD)
    assert language == "Python"
    tree = ast.parse(code)
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert calls <= {"load", "sha1", "list", "len"}
    assert EVIL in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_numbers_keep_their_digits() -> None:
    assert "1.10" in code_of_test("js:v4.24.0", TOLD)[1]
    assert "1.10" in code_of_test("py:v0.5.18", TOLD)[1]


def test_javascript_names_the_step_and_its_stubs() -> None:
    told = Told("shop-process-order", '{"name":"order/placed","data":{}}', [("reserve", "null")], "charge")
    language, code = code_of_test("js:v4.24.0", told)
    assert language == "TypeScript"
    assert "function: shopProcessOrder" in code
    assert '{ id: "reserve", handler: () => (null) }' in code
    assert 't.executeStep("charge")' in code


def test_hidden_characters_are_escaped_in_javascript() -> None:
    told = Told("f", '{"s":"a\u202eb\U000e0001c \u00e9"}', [], None)
    code = code_of_test("js:v4.24.0", told)[1]
    assert '"a\\u202eb\\udb40\\udc01c \u00e9"' in code
    assert "\u202e" not in code
