"""What passes through: values of every kind and size, unchanged."""

from typing import Any

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import event, give, js, note, run, var

ECHO = function(
    "echo", run("keep", gives=event("data.value")), note("saw", var("keep")), run("after"), give(var("keep"))
)
BIG = function("big", run("big", size=1_000_000), run("after", gives={"$length": "big"}), give(var("after")))
HUGE = function(
    "large-state",
    *(run(f"mb{n}", size=1_000_000) for n in range(6)),
    note("lengths", [{"$length": f"mb{n}"} for n in range(6)]),
    run("after"),
    give([{"$length": f"mb{n}"} for n in range(6)]),
)
NOTHING = function("nothing", run("null", gives={"$null": 1}), note("saw", var("null")), run("after"), give(None))
UNDEFINED = function(
    "undefined", run("gone", gives=js("undefined")), run("after", gives=[var("gone")]), give(var("after")), needs=["js"]
)
NESTED_UNDEFINED = function(
    "nested-undefined", run("gone", gives={"a": 1, "b": js("undefined")}), run("after"), give(var("gone")), needs=["js"]
)
DATE = function(
    "date", run("when", gives={"at": js("date")}), run("after", gives=var("when")), give(var("after")), needs=["js"]
)
MINUS_ZERO = function(
    "minus-zero", run("zero", gives=js("negative zero")), run("after"), give(var("zero")), needs=["js"]
)
NAN = function("nan", run("nan", gives=[js("nan")]), run("after"), give(var("nan")), needs=["js"])


async def comes_back(play: Play, value: Any) -> None:
    """Hold a value against what came back through event, step, state and result."""
    output = await play.completes(ECHO, {"value": value})

    assert (output, type(output)) == (value, type(value))
    assert play.noted("saw") == value


@case("Values")
async def text_of_every_script_and_sign_comes_back(play: Play) -> None:
    await comes_back(play, 'Größe 東京 عربي 👩‍👩‍👧 \u2028\u2029 \u0001 \\ " </script> \ufeff 𝔘')


@case("Values")
async def keys_of_every_kind_come_back_in_any_order(play: Play) -> None:
    await comes_back(play, {"z": 1, "a": 2, "": 3, "ключ": 4, "10": 5, "9": 6, "a.b": 7, "€": 8, "😀": 9, "\ufb33": 10})


@case("Values")
async def numbers_come_back(play: Play) -> None:
    await comes_back(play, [0, -1, 0.1, 1.5e-7, 1e21, 9007199254740991, -9007199254740991, 123456789.125])


@case("Values")
async def empty_values_come_back(play: Play) -> None:
    await comes_back(play, [None, False, 0, "", [], {}, [[]], {"a": None}])


@case("Values")
async def deep_values_come_back(play: Play) -> None:
    value: Any = "core"
    for number in range(40):
        value = [value] if number % 2 else {"in": value}
    await comes_back(play, value)


@case("Values")
async def values_that_look_like_the_protocols_own_come_back(play: Play) -> None:
    await comes_back(
        play,
        {
            "data": {"data": 1},
            "error": {"name": "x", "message": "y"},
            "op": "StepRun",
            "id": "a",
            "steps": {},
            "$ref": "#",
        },
    )


@case("Values")
async def an_encrypted_payload_comes_back_untouched(play: Play) -> None:
    await comes_back(
        play, {"__ENCRYPTED__": True, "__STRATEGY__": "inngest/libsodium", "data": "3q2+7w==" * 50, "_plain": {"id": 1}}
    )


@case("Values")
async def a_step_that_gives_nothing_gives_null_and_is_not_repeated(play: Play) -> None:
    output = await play.completes(NOTHING)

    assert output is None
    assert play.noted("saw") is None
    assert play.steps() == ["null", "after"]


@case("Values", needs=["js"])
async def a_step_that_gives_undefined_is_not_repeated(play: Play) -> None:
    output = await play.completes(UNDEFINED)

    assert output == [None]
    assert play.steps() == ["gone", "after"]


@case("Values", needs=["js"])
async def undefined_within_an_object_is_left_out(play: Play) -> None:
    assert await play.completes(NESTED_UNDEFINED) == {"a": 1}


@case("Values", needs=["js"])
async def a_date_becomes_its_iso_text(play: Play) -> None:
    assert await play.completes(DATE) == {"at": "2026-02-03T04:05:06.789Z"}


@case("Values", needs=["js"])
async def minus_zero_becomes_zero_and_no_number_becomes_null(play: Play) -> None:
    assert await play.completes(MINUS_ZERO) == 0
    assert await play.completes(NAN) == [None]


@case("Values")
async def an_output_of_a_megabyte_is_kept(play: Play) -> None:
    output = await play.completes(BIG)

    assert output == 1_000_000
    assert play.steps() == ["big", "after"]


@case("Values")
async def a_state_too_large_for_a_call_is_fetched_by_the_sdk(play: Play) -> None:
    output = await play.completes(HUGE)

    assert output == [1_000_000] * 6
    assert play.noted("lengths") == [1_000_000] * 6
    assert play.steps() == [*(f"mb{n}" for n in range(6)), "after"]
