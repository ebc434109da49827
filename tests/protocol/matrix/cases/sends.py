"""Steps that send events."""

from tests.protocol.matrix.catalogue import case, function
from tests.protocol.matrix.play import Play
from tests.protocol.matrix.script import event, failing, give, run, send, var

KEY = event("data.key")
HEARER = function("hearer", run("heard", gives=event("data.n")), give(event("data.n")))
SENDS = function(
    "sends",
    send(
        "tell", {"name": "@@/hearer", "data": {"key": KEY, "n": 1}}, {"name": "@@/hearer", "data": {"key": KEY, "n": 2}}
    ),
    run("shaky", fails=failing(2)),
    give(var("tell")),
)
FANS_OUT = function("fans-out", send("all", *({"name": "@@/hearer", "data": {"key": KEY, "n": n}} for n in range(10))))


@case("Sending events")
async def events_sent_by_a_step_are_sent_once_and_their_ids_are_given(play: Play) -> None:
    ids = await play.completes(SENDS)
    ended = [(await play.ends(event_id))[0] for event_id in ids]

    assert [run_["output"] for run_ in ended] == [1, 2]
    assert play.steps().count("heard") == 2


@case("Sending events")
async def one_step_starts_ten_runs(play: Play) -> None:
    await play.completes(FANS_OUT)
    await play.until_noted("heard", times=10)
    await play.taken()

    assert play.steps() == ["heard"] * 10


@case("Sending events")
async def an_event_nobody_listens_to_is_kept_and_starts_nothing(play: Play) -> None:
    event_id = await play.send("nobody-listens", {"n": 1})
    await play.taken()
    status, body = await play.api("GET", f"/v1/events/{event_id}")

    assert (status, body["data"]["data"]["n"]) == (200, 1)
    assert await play.runs_of(event_id) == []
