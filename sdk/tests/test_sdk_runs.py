"""Whole runs through the ASGI endpoint: what a function does over many calls, written once async and once plain."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sdk_world import RUN_ID, SIGNING_KEY, Engine, Request, call_asgi_async, connect, make_client

import stepwell
from stepwell import Context, Event, NonRetriableError, RetryAfterError, Step, StepError, SyncStep
from stepwell._replay import hash_step_id

GO = Event("t/go")


def start(client: stepwell.Client, name: str = "f", **options: Any) -> Engine:
    """An engine for a function of the client, with checkpoints served."""
    engine = Engine(stepwell.serve.asgi(client), f"app-{name}", **options)
    connect(client, engine.checkpoint)
    return engine


def sequence(client: stepwell.Client, calls: list[str], *, is_async: bool) -> None:
    def work(name: str) -> dict[str, str]:
        calls.append(name)
        return {"did": name}

    if is_async:

        @client.function(id="f", trigger=GO)
        async def fa(ctx: Context, step: Step) -> Any:
            first = await step.run("a", work, "one")
            await step.sleep("nap", timedelta(minutes=90))
            second = await step.run("a", work, "two")
            return [first, second, ctx.run_id]

    else:

        @client.function(id="f", trigger=GO)
        def fs(ctx: Context, step: SyncStep) -> Any:
            first = step.run("a", work, "one")
            step.sleep("nap", timedelta(minutes=90))
            second = step.run("a", work, "two")
            return [first, second, ctx.run_id]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_sequence_with_a_repeated_id_executes_each_step_once(is_async: bool) -> None:
    client, calls = make_client(), list[str]()
    sequence(client, calls, is_async=is_async)
    engine = start(client)

    assert engine.run() == ("ok", [{"did": "one"}, {"did": "two"}, RUN_ID])
    assert calls == ["one", "two"]
    assert engine.exchange == [
        "step a0 -> 206 StepRun:a",
        "step a0 -> 206 Sleep:nap",
        "step a0 -> 206 StepRun:a",
        'step a0 -> 200 [{"did": "one"}, {"did": "two"}, "01HQRN0000000000000000RN00"]',
    ]
    ops = [answer.content[0] for answer in engine.answers[:3]]
    assert ops[0]["opts"]["input"] == ["one"]
    assert ops[1]["name"] == "90m"
    assert ops[1]["opts"]["duration"] == "90m"
    assert ops[2]["userland"] == {"id": "a", "index": 1}


@pytest.mark.parametrize("is_async", [True, False])
def test_with_checkpoints_steps_up_to_the_sleep_share_one_call(is_async: bool) -> None:
    client, calls = make_client(checkpointing=True), list[str]()
    sequence(client, calls, is_async=is_async)
    engine = start(client)

    assert engine.run() == ("ok", [{"did": "one"}, {"did": "two"}, RUN_ID])
    assert calls == ["one", "two"]
    assert [line.split(" -> ")[0] for line in engine.exchange] == [
        "step a0",
        "checkpoint 200 StepRun:a",
        "step a0",
        "checkpoint 200 StepRun:a",
    ]


def test_a_checkpoint_names_the_call_it_belongs_to() -> None:
    client = make_client(checkpointing=True, is_dev=False, signing_key=SIGNING_KEY)
    sequence(client, [], is_async=True)
    engine = start(client, signing_key=SIGNING_KEY)
    server = connect(client, engine.checkpoint)

    engine.run()

    first = server.requests[0]
    assert {key: first.body[key] for key in ("run_id", "fn_id", "qi_id", "request_id", "generation_id")} == {
        "run_id": RUN_ID,
        "fn_id": "11111111-1111-4111-8111-111111111111",
        "qi_id": "item",
        "request_id": "01HREQ",
        "generation_id": 7,
    }
    assert first.headers["authorization"].startswith("Bearer signkey-test-")


@pytest.mark.parametrize("is_async", [True, False])
def test_a_refused_checkpoint_as_stale_ends_the_call_without_retry(is_async: bool) -> None:
    client, calls = make_client(checkpointing=True), list[str]()
    sequence(client, calls, is_async=is_async)
    engine = start(client, checkpoint_status=[409])

    state, error = engine.run()

    assert (state, error["name"]) == ("failed", "StaleDispatchError")
    assert engine.answers[0].status == 400
    assert calls == ["one"]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_step_that_cannot_be_saved_travels_with_the_answer(is_async: bool) -> None:
    client, calls = make_client(checkpointing=True), list[str]()
    sequence(client, calls, is_async=is_async)
    engine = start(client, checkpoint_status=[404])

    assert engine.run()[0] == "ok"
    assert calls == ["one", "two"]
    assert engine.exchange[0] == "step a0 -> 206 StepRun:a"


def test_an_overloaded_server_is_asked_again_until_the_checkpoint_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("stepwell._api.time.sleep", waits.append)
    client, calls = make_client(checkpointing=True), list[str]()
    sequence(client, calls, is_async=False)
    engine = start(client, checkpoint_status=[503, 429])

    assert engine.run()[0] == "ok"
    assert [line.split(" ->")[0] for line in engine.exchange][:4] == [
        "step a0",
        "checkpoint 503 StepRun:a",
        "checkpoint 429 StepRun:a",
        "checkpoint 200 StepRun:a",
    ]
    assert [0.1 <= waits[0] <= 0.2, 0.2 <= waits[1] <= 0.4] == [True, True]


def parallel(client: stepwell.Client, calls: list[str], style: str) -> None:
    def work(name: str) -> str:
        calls.append(name)
        return name.upper()

    if style == "sync":

        @client.function(id="f", trigger=GO)
        def fs(ctx: Context, step: SyncStep) -> Any:
            def chain() -> list[str]:
                return [step.run("p1", work, "p1"), step.run("p1b", work, "p1b")]

            both = step.parallel(chain, lambda: step.run("p2", work, "p2"))
            return [*both, step.run("after", work, "after")]

    else:

        @client.function(id="f", trigger=GO)
        async def fa(ctx: Context, step: Step) -> Any:
            async def chain() -> list[str]:
                return [await step.run("p1", work, "p1"), await step.run("p1b", work, "p1b")]

            if style == "parallel":
                both: Any = await step.parallel(chain, lambda: step.run("p2", work, "p2"))
            elif style == "gather":
                both = await asyncio.gather(chain(), step.run("p2", work, "p2"))
            else:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(chain()), group.create_task(step.run("p2", work, "p2"))]
                both = [task.result() for task in tasks]
            return [*both, await step.run("after", work, "after")]


@pytest.mark.parametrize("style", ["sync", "parallel", "gather", "task group"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_parallel_group_is_planned_executed_once_and_joined(style: str, checkpointing: bool) -> None:
    client, calls = make_client(checkpointing=checkpointing), list[str]()
    parallel(client, calls, style)
    engine = start(client)

    assert engine.run() == ("ok", [["P1", "P1B"], "P2", "AFTER"])
    assert sorted(calls) == ["after", "p1", "p1b", "p2"]
    assert engine.exchange[:3] == [
        "step a0 -> 206 StepPlanned:p1 StepPlanned:p2",
        "b78f57 a0 -> 206 StepRun:p1",
        "c5fd96 a0 -> 206 StepRun:p2",
    ]


@pytest.mark.parametrize("style", ["sync", "parallel"])
def test_under_the_plan_flag_even_a_single_step_is_only_planned(style: str) -> None:
    client, calls = make_client(), list[str]()
    parallel(client, calls, style)
    engine = start(client)
    engine.run()
    after = engine.stack[-1]
    engine.stack.remove(after)
    engine.steps.pop(after)
    engine.plan_only, engine.outcome = True, None
    engine._items.append(("step", 0))
    engine._call(*engine._items.popleft())

    assert engine.exchange[-1] == "step a0 -> 206 StepPlanned:after"


def race(client: stepwell.Client, *, is_async: bool) -> None:
    if is_async:

        @client.function(id="f", trigger=GO)
        async def fa(ctx: Context, step: Step) -> Any:
            async def slow() -> str:
                await step.run("s1", lambda: "s1")
                return await step.run("s2", lambda: "slow")

            won = await step.parallel(slow, lambda: step.run("q", lambda: "quick"), mode="race")
            return [won, await step.run("after", lambda: "after")]

    else:

        @client.function(id="f", trigger=GO)
        def fs(ctx: Context, step: SyncStep) -> Any:
            def slow() -> str:
                step.run("s1", lambda: "s1")
                return step.run("s2", lambda: "slow")

            won = step.parallel(slow, lambda: step.run("q", lambda: "quick"), mode="race")
            return [won, step.run("after", lambda: "after")]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_race_gives_the_branch_that_ended_first_and_asks_no_more_of_the_others(is_async: bool) -> None:
    client = make_client()
    race(client, is_async=is_async)
    engine = start(client)

    assert engine.run() == ("ok", ["quick", "after"])
    assert engine.answers[0].content[0]["opts"]["parallelMode"] == "race"
    assert "after" in engine.exchange[-2]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_race_replays_to_the_same_winner_whatever_finished_later(is_async: bool) -> None:
    client = make_client()
    race(client, is_async=is_async)
    engine = start(client)
    engine.run()
    ids = {answer.content[0]["displayName"]: answer.content[0]["id"] for answer in engine.answers[1:-1]}

    for order, winner in ((["s1", "q", "s2"], "quick"), (["s1", "s2", "q"], "slow")):
        again = start(client)
        hashed = {"s2": hash_step_id("s2", 0), **ids}
        again.stack = [hashed[name] for name in order]
        values = {"s1": "s1", "s2": "slow", "q": "quick"}
        again.steps = {hashed[name]: {"data": values[name]} for name in order}
        assert again.run() == ("ok", [winner, "after"])


@pytest.mark.parametrize("is_async", [True, False])
def test_a_failing_step_is_retried_then_raised_into_the_function(is_async: bool) -> None:
    client, attempts = make_client(checkpointing=True), list[int]()

    def fail(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise KeyError("nothing there")

    if is_async:

        @client.function(id="f", trigger=GO)
        async def fa(ctx: Context, step: Step) -> Any:
            await step.run("before", lambda: None)
            try:
                await step.run("bad", fail, ctx)
            except StepError as error:
                return [error.name, error.message, await step.run("rescue", lambda: "rescued")]

    else:

        @client.function(id="f", trigger=GO)
        def fs(ctx: Context, step: SyncStep) -> Any:
            step.run("before", lambda: None)
            try:
                step.run("bad", fail, ctx)
            except StepError as error:
                return [error.name, error.message, step.run("rescue", lambda: "rescued")]
            return None

    engine = start(client)

    assert engine.run() == ("ok", ["KeyError", "'nothing there'", "rescued"])
    assert attempts == [0, 1, 2]
    last = next(answer for answer in engine.answers if answer.content[0]["op"] == "StepFailed")
    assert last.headers["x-inngest-no-retry"] == "true"
    assert "KeyError" in last.content[0]["error"]["stack"]


def test_after_a_checkpoint_the_next_step_has_all_its_attempts() -> None:
    client, seen = make_client(checkpointing=True), list[tuple[str, int]]()

    def work(ctx: Context, name: str) -> None:
        seen.append((name, ctx.attempt))
        if ctx.attempt < 2:
            raise RuntimeError(name)

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> str:
        await step.run("one", lambda: work(ctx, "one"))
        await step.run("two", lambda: work(ctx, "two"))
        return "done"

    engine = start(client)

    assert engine.run() == ("ok", "done")
    assert seen == [(name, attempt) for name in ("one", "two") for attempt in (0, 1, 2)]


@pytest.mark.parametrize(
    ("raised", "op", "no_retry", "retry_after"),
    [
        (RuntimeError("x"), "StepError", "false", None),
        (NonRetriableError("x"), "StepFailed", "true", None),
        (RetryAfterError("x", 2), "StepError", "false", "2"),
        (RetryAfterError("x", "1h30m"), "StepError", "false", "5400"),
        (RetryAfterError("x", datetime(2030, 1, 2, tzinfo=UTC)), "StepError", "false", "2030-01-02T00:00:00.000Z"),
    ],
)
def test_what_a_step_raises_decides_whether_and_when_it_is_retried(
    raised: Exception, op: str, no_retry: str, retry_after: str | None
) -> None:
    client = make_client()

    def fail() -> None:
        raise raised

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> None:
        await step.run("bad", fail)

    engine = start(client)
    engine._call("step", 0)

    answer = engine.answers[0]
    assert answer.content[0]["op"] == op
    assert answer.content[0]["error"]["message"] == "x"
    assert answer.headers["x-inngest-no-retry"] == no_retry
    assert answer.headers.get("retry-after") == retry_after


@pytest.mark.parametrize(
    ("raised", "status", "no_retry", "retry_after"),
    [
        (RuntimeError("x"), 500, "false", None),
        (NonRetriableError("x"), 400, "true", None),
        (RetryAfterError("x", 30), 500, "false", "30"),
        (StepError({"name": "Declined", "message": "x"}), 400, "true", None),
    ],
)
def test_what_a_function_raises_decides_how_the_run_goes_on(
    raised: Exception, status: int, no_retry: str, retry_after: str | None
) -> None:
    client = make_client()

    @client.function(id="f", trigger=GO)
    def f(ctx: Context, step: SyncStep) -> None:
        raise raised

    engine = start(client)
    engine._call("step", 0)

    answer = engine.answers[0]
    assert (answer.status, answer.content["message"]) == (status, "x")
    assert answer.headers["x-inngest-no-retry"] == no_retry
    assert answer.headers.get("retry-after") == retry_after


def test_an_uncaught_step_error_keeps_the_words_of_the_original() -> None:
    client = make_client()

    class DeclinedError(Exception):
        pass

    def fail() -> None:
        raise DeclinedError("card declined")

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> None:
        await step.run("pay", fail)

    state, error = start(client, max_attempts=1).run()

    assert (state, error["name"], error["message"]) == ("failed", "DeclinedError", "card declined")


def test_waits_give_the_event_or_none_and_invokes_give_the_result() -> None:
    client = make_client()

    @client.function(id="other")
    async def other(ctx: Context, step: Step) -> None: ...

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> Any:
        event = await step.wait_for_event("w", "t/paid", timeout="1h", if_="event.data.id == async.data.id")
        late = await step.wait_for_event("late", "t/paid", timeout=timedelta(days=8))
        result = await step.invoke("i", other, {"x": 1}, timeout="5m")
        await step.sleep_until("until", datetime(2030, 1, 1, tzinfo=UTC))
        return [event and event.data, late, result]

    event = {"name": "t/paid", "data": {"id": 1}, "ts": 1, "id": "01X", "user": {}}
    engine = start(client, replies={"w": event, "late": None, "i": {"data": {"got": 1}}})

    assert engine.run() == ("ok", [{"id": 1}, None, {"got": 1}])
    wait, late, invoke, until = (answer.content[0] for answer in engine.answers[:4])
    assert (wait["name"], wait["opts"]) == (
        "t/paid",
        {"event": "t/paid", "timeout": "1h", "if": "event.data.id == async.data.id"},
    )
    assert late["opts"]["timeout"] == "8d"
    assert invoke["opts"] == {"function_id": "app-other", "payload": {"data": {"x": 1}}, "timeout": "5m"}
    assert until["name"] == "2030-01-01T00:00:00.000Z"


def test_events_sent_by_a_step_keep_their_ids_when_the_step_is_executed_again() -> None:
    client, seeds = make_client(), list[str]()

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> list[list[str]]:
        first = await step.send_event("tell", {"name": "t/a", "data": {"x": 1}})
        second = await step.send_event("tell", stepwell.EventMessage(name="t/b"))
        return [first, second]

    def respond(request: Request) -> tuple[int, Any]:
        seeds.append(request.headers["x-inngest-event-id-seed"])
        return 200, {"ids": [f"id{len(seeds)}"], "status": 200}

    for _ in range(2):
        engine = Engine(stepwell.serve.asgi(client), "app-f")
        connect(client, respond)
        engine.run()

    assert engine.outcome == ("ok", [["id3"], ["id4"]])
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]


def test_user_code_cannot_swallow_the_end_of_a_call() -> None:
    client, cleaned = make_client(), list[str]()

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> str:
        try:
            return await step.run("a", lambda: "a")
        except Exception:  # noqa: BLE001  what users write
            return "swallowed"
        finally:
            cleaned.append("finally")

    assert start(client).run() == ("ok", "a")
    assert cleaned == ["finally", "finally"]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_step_inside_a_step_fails_with_advice(is_async: bool) -> None:
    client = make_client()
    if is_async:

        @client.function(id="f", trigger=GO)
        async def fa(ctx: Context, step: Step) -> None:
            async def outer() -> None:
                await step.run("inner", lambda: 1)

            await step.run("outer", outer)

    else:

        @client.function(id="f", trigger=GO)
        def fs(ctx: Context, step: SyncStep) -> None:
            step.run("outer", lambda: step.run("inner", lambda: 1))

    state, error = start(client).run()

    assert (state, error["name"]) == ("failed", "NestedStepError")


def test_a_result_without_json_form_fails_the_step_for_good() -> None:
    client = make_client()

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> None:
        await step.run("bad", object)

    state, error = start(client).run()

    assert (state, error["name"]) == ("failed", "UnserializableError")
    assert "plain values" in error["message"]


def test_steps_after_other_waiting_are_found_and_plain_steps_do_not_block_the_loop() -> None:
    client, threads = make_client(), set[int]()

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> int:
        await asyncio.sleep(0.01)
        await step.run("a", lambda: threads.add(threading.get_ident()))
        await asyncio.sleep(0.01)
        return await step.run("b", lambda: 2)

    assert start(client).run() == ("ok", 2)
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("is_async", [True, False])
def test_a_targeted_step_that_is_not_asked_for_is_reported_and_retried(
    is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell._async_shell._MISSING_GRACE_S", 0.01)
    client, calls = make_client(), list[str]()
    sequence(client, calls, is_async=is_async)
    engine = start(client)
    engine._call("0" * 40, 0)

    answer = engine.answers[0]
    assert (answer.status, answer.headers["x-inngest-no-retry"]) == (500, "false")
    assert "'a'" in answer.content["message"]
    assert calls == []


@pytest.mark.parametrize("is_async", [True, False])
def test_a_call_that_saved_steps_for_long_enough_plans_the_next_one(
    is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell._execute.MAX_RUNTIME_S", -1)
    client, calls = make_client(checkpointing=True), list[str]()
    sequence(client, calls, is_async=is_async)
    engine = start(client)

    assert engine.run()[0] == "ok"
    assert engine.exchange[0] == "step a0 -> 206 StepPlanned:a"
    assert calls == ["one", "two"]


def test_an_edited_input_replaces_the_arguments() -> None:
    client, calls = make_client(), list[str]()
    sequence(client, calls, is_async=True)
    engine = start(client)
    engine.steps = {hash_step_id("a", 0): {"input": ["edited"]}}
    engine._call("step", 0)

    assert engine.answers[0].content[0]["data"] == {"did": "edited"}


def test_a_cancelled_request_cancels_the_function_and_its_step() -> None:
    client, ended = make_client(), list[str]()

    @client.function(id="f", trigger=GO)
    async def f(ctx: Context, step: Step) -> None:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("step")
                raise

        try:
            await step.run("a", forever)
        finally:
            ended.append("function")

    engine = start(client)

    async def cut_off() -> None:
        body = engine.body_of("step", 0)
        request = asyncio.create_task(call_asgi_async(engine.app, "POST", "/api/inngest?fnId=app-f", body))
        for _ in range(100):
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(cut_off())
    assert sorted(ended) == ["function", "step"]


def test_one_failing_branch_raises_once_all_branches_have_ended() -> None:
    client, calls = make_client(), list[str]()

    def fail() -> None:
        raise NonRetriableError("no")

    @client.function(id="f", trigger=GO)
    def f(ctx: Context, step: SyncStep) -> str:
        try:
            step.parallel(lambda: step.run("bad", fail), lambda: step.run("good", calls.append, "good"))
        except StepError as error:
            return error.message
        return "no error"

    assert start(client).run() == ("ok", "no")
    assert calls == ["good"]
