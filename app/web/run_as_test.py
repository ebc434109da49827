"""A run as a test of its function: code to copy, in the language of the app's SDK. Pure text; nothing is run here.

JavaScript and Python with the test tools of their SDKs, everything else as the call itself, which any app in development
mode answers. Names of the tenant's are put in as JSON texts, so that nothing of them is code.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Told:
    """What the test begins with: the function, its event as JSON, (name, memo as JSON) of the steps before, the step."""

    function_slug: str
    event: str
    steps: Sequence[tuple[str, str]]
    step: str | None


def code_of_test(sdk: str, told: Told) -> tuple[str, str]:
    """(language, code) for the SDK as it names itself, such as `js:v4.24.0`."""
    if sdk.startswith("js:"):
        return "TypeScript", _typescript(told)
    if sdk.startswith("py:"):
        return "Python", _python(told)
    return "Python", _call(told)


def _typescript(told: Told) -> str:
    name = _camel(told.function_slug)
    steps = "".join(
        f"    {{ id: {json.dumps(step)}, handler: () => ({_json(memo, 6)}) }},\n" for step, memo in told.steps
    )
    run = f"t.executeStep({json.dumps(told.step)})" if told.step else "t.execute()"
    return f"""import {{ InngestTestEngine }} from "@inngest/test";
import {{ expect, test }} from "vitest";
import {{ {name} }} from "./functions"; // where yours is

test({json.dumps(told.step or told.function_slug)}, async () => {{
  const t = new InngestTestEngine({{
    function: {name},
    events: [{_json(told.event, 4)}],
    steps: [
{_indent(steps, 2)}    ],
  }});
  const {{ result, error }} = await {run};
  expect(error).toBeUndefined();
  expect(result).toMatchSnapshot();
}});
"""


def _python(told: Told) -> str:
    name = _snake(told.function_slug)
    stubs = "".join(f"    {json.dumps(step)}: load({_raw(memo)}),\n" for step, memo in told.steps)
    return f"""from json import loads as load

import inngest
from inngest.experimental import mocked

from functions import {name}  # where yours is

EVENT = load({_raw(told.event)})
STEPS = {{
{stubs}}}


def test_{_snake(told.step or told.function_slug)}() -> None:
    event = inngest.Event(name=EVENT["name"], data=EVENT["data"])
    result = mocked.trigger({name}, event, mocked.Inngest(app_id="test"), step_stubs=STEPS)
    assert result.status is mocked.Status.COMPLETED
"""


def _call(told: Told) -> str:
    """The call, for an app that runs beside the test in development mode: it answers 206 with steps, or 200."""
    stubs = "".join(f"    {json.dumps(step)}: load({_raw(memo)}),\n" for step, memo in told.steps)
    return f"""from hashlib import sha1
from json import loads as load

import httpx

URL = "http://localhost:8000/api/inngest"  # where your app listens, in development mode
EVENT = load({_raw(told.event)})
STEPS = {{
{stubs}}}


def test_{_snake(told.step or told.function_slug)}() -> None:
    steps = {{sha1(name.encode()).hexdigest(): {{"data": value}} for name, value in STEPS.items()}}
    context = {{"run_id": "test", "attempt": 0, "stack": {{"stack": list(steps), "current": len(steps)}}}}
    call = {{"event": EVENT, "events": [EVENT], "steps": steps, "ctx": context, "version": 1, "use_api": False}}
    answer = httpx.post(URL, params={{"fnId": {json.dumps(told.function_slug)}, "stepId": "step"}}, json=call)
    assert answer.status_code in (200, 206), answer.text
"""


def _json(text: str, spaces: int) -> str:
    """JSON inside code, further lines moved in. A JSON text is an expression of JavaScript."""
    try:
        shown = msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError):
        shown = "null"
    return "".join(map(_seen, shown)).replace("\n", "\n" + " " * spaces)


def _seen(char: str) -> str:
    """A character of JSON that can be seen, or its escape: such ones stand inside of texts only."""
    if char == "\n" or char.isprintable():
        return char
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[n : n + 4]}" for n in range(0, len(units), 4))


def _raw(text: str) -> str:
    """JSON as a Python text: `ascii` leaves nothing that could end it."""
    return ascii(text)


def _indent(text: str, spaces: int) -> str:
    return "".join(f"{' ' * spaces}{line}" for line in text.splitlines(keepends=True))


def _words(text: str) -> list[str]:
    """The words of a name, as far as they can be part of one in code."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    return words if words and words[0][0].isalpha() else ["fn", *words]


def _camel(text: str) -> str:
    first, *rest = _words(text)
    return first.lower() + "".join(word.capitalize() for word in rest)


def _snake(text: str) -> str:
    return "_".join(word.lower() for word in _words(text))
