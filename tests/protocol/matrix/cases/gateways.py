"""Requests that Stepwell makes for an app: `step.fetch` and `step.ai`."""

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.provider import ANTHROPIC, OPENAI
from tests.protocol.matrix.script import attempt, event, fetch, give, infer, note, run, var, wrap

FETCHES = function(
    "fetches",
    fetch("get", "/page"),
    fetch("post", "/form", {"a": "ä"}),
    give([var("get"), var("post")]),
    needs=["fetch"],
)
FETCHES_ERROR = function("fetches-error", fetch("get", "/teapot"), give(var("get")), needs=["fetch"])
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "2+2?"}]}
OPEN = function(
    "infers-openai", infer("ask", "openai", ASK, path="/openai"), run("after"), give(var("ask")), needs=["infer"]
)
CLAUDE = {"model": "claude-3-5-sonnet-latest", "max_tokens": 10, "messages": [{"role": "user", "content": "2+2?"}]}
ANTHRO = function(
    "infers-anthropic", infer("ask", "anthropic", CLAUDE, path="/anthropic"), give(var("ask")), needs=["infer"]
)
REFUSED = function(
    "infers-refused",
    attempt("error", infer("ask", "openai", ASK, path="/refuses")),
    note("caught", var("error")),
    run("after"),
    needs=["infer"],
    retries=0,
)
WRAPS = function("wraps", wrap("think", {"in": event("data.n")}), run("after"), give(var("think")), needs=["wrap"])


@case("Requests made for an app", needs=["fetch"])
async def a_fetch_is_made_once_by_stepwell_and_its_answer_is_kept(play: Play) -> None:
    output = await play.completes(FETCHES)

    assert output == [{"status": 200, "body": {"echo": None}}, {"status": 200, "body": {"echo": {"a": "ä"}}}]
    assert [asked["method"] for asked in play.asked_of_web("/page") + play.asked_of_web("/form")] == ["GET", "POST"]


@case("Requests made for an app", needs=["fetch"])
async def a_fetch_gives_an_answer_of_any_status(play: Play) -> None:
    output = await play.completes(FETCHES_ERROR)

    assert output == {"status": 418, "body": {"error": "short and stout"}}


@case("Requests made for an app", needs=["infer"])
async def an_inference_in_the_openai_format_is_made_once_with_the_apps_key(play: Play) -> None:
    output = await play.completes(OPEN)

    (asked,) = play.asked_of_web("/openai/chat/completions")
    assert output == OPENAI
    assert asked["body"]["messages"] == ASK["messages"]
    assert asked["headers"]["authorization"] == "Bearer secret"


@case("Requests made for an app", needs=["infer"])
async def an_inference_in_the_anthropic_format_is_made_once_with_the_apps_key(play: Play) -> None:
    output = await play.completes(ANTHRO)

    (asked,) = play.asked_of_web("/anthropic/messages")
    assert output == ANTHROPIC
    assert asked["body"]["messages"] == CLAUDE["messages"]
    assert asked["headers"]["x-api-key"] == "secret"


@case("Requests made for an app", needs=["infer"])
async def a_provider_that_refuses_is_an_error_that_user_code_catches(play: Play) -> None:
    await play.completes(REFUSED)

    assert play.noted("caught")["message"]
    assert play.steps() == ["after"]


@case("Requests made for an app", needs=["wrap"])
async def a_wrapped_call_of_the_app_is_a_step(play: Play) -> None:
    output = await play.completes(WRAPS, {"n": 4})

    assert output == {"in": 4}
