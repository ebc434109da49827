"""What `/v0` and `/v1` answer about runs, to whom, and what cancelling does. The cases' `sleeper` is the run asked about."""

import hashlib
from dataclasses import dataclass

import pytest

from tests.processes import await_so
from tests.protocol.sdks import App
from tests.protocol.server import Api
from tests.protocol.world import World, only_dev, only_signed

UNKNOWN = "01JZZZZZZZZZZZZZZZZZZZZZZZ"
PATHS = ("/v1/runs/{run}", "/v0/runs/{run}/actions", "/v0/runs/{run}/batch", "/v1/events/{event}/runs")


@dataclass(frozen=True, slots=True)
class Sleeping:
    """A run that sleeps for an hour after its first step."""

    app: App
    key: str
    event_id: str
    run_id: str


def put_to_sleep(world: World, key: str) -> Sleeping:
    app = world.registered("cases")
    event_id = app.send("case/sleeper", {"key": key})
    run_id = world.api.await_run(event_id)["run_id"]

    def sleeps() -> bool:
        actions = world.api.call("GET", f"/v0/runs/{run_id}/actions")
        return actions.status_code == 200 and len(actions.json()) == 1

    await_so(sleeps, f"run {run_id} has done its first step", [*world.server.processes, app.process])
    return Sleeping(app, key, event_id, run_id)


@pytest.fixture(scope="session")
def sleeping(world: World) -> Sleeping:
    """Give a sleeping run that nobody wakes or ends."""
    return put_to_sleep(world, "k-asked-about")


def paths(sleeping: Sleeping) -> list[str]:
    return [path.format(run=sleeping.run_id, event=sleeping.event_id) for path in PATHS]


def statuses(api: Api, sleeping: Sleeping) -> list[int]:
    return [api.call("GET", path).status_code for path in paths(sleeping)]


def test_a_sleeping_run_is_running_and_shows_what_is_done(world: World, sleeping: Sleeping) -> None:
    run = world.api.run(sleeping.run_id)
    actions = world.api.call("GET", f"/v0/runs/{sleeping.run_id}/actions").json()
    batch = world.api.call("GET", f"/v0/runs/{sleeping.run_id}/batch").json()

    assert (run["status"], run["ended_at"]) == ("Running", None)
    assert list(actions.values()) == [{"data": "before"}]
    assert [(event["name"], event["data"]["key"]) for event in batch] == [("case/sleeper", sleeping.key)]


@only_signed
@pytest.mark.parametrize("form", ["key", "key without prefix", "hash", "hash with prefix"])
def test_every_form_of_the_signing_key_is_a_good_bearer(world: World, sleeping: Sleeping, form: str) -> None:
    assert statuses(world.server.api_with(_token(world, form)), sleeping) == [200] * len(PATHS)


def _token(world: World, form: str) -> str:
    key = world.tenant.signing_key
    prefix, _, secret = key.rpartition("-")
    digest = hashlib.sha256(bytes.fromhex(secret)).hexdigest()
    return {"key": key, "key without prefix": secret, "hash": digest, "hash with prefix": f"{prefix}-{digest}"}[form]


WRONG = [None, "wrong", "signkey-prod-" + "ab" * 32, "ab" * 32]


@only_signed
@pytest.mark.parametrize("token", WRONG)
def test_a_wrong_or_missing_bearer_is_refused(world: World, sleeping: Sleeping, token: str | None) -> None:
    api = world.server.api_with(token)

    assert statuses(api, sleeping) == [401] * len(PATHS)
    assert api.call("DELETE", f"/v1/runs/{sleeping.run_id}").status_code == 401
    assert world.api.run(sleeping.run_id)["status"] == "Running"


@only_dev
@pytest.mark.parametrize("token", WRONG)
def test_in_dev_mode_nobody_needs_a_key(world: World, sleeping: Sleeping, token: str | None) -> None:
    assert statuses(world.server.api_with(token), sleeping) == [200] * len(PATHS)


@only_signed
def test_another_tenant_finds_neither_the_run_nor_a_way_to_end_it(world: World, sleeping: Sleeping) -> None:
    other = world.server.api(world.server.tenant())

    for method, path, status in (
        ("GET", "/v1/runs/{}", 404),
        ("DELETE", "/v1/runs/{}", 404),
        # An SDK that fetches state is told that there is none (any more), so that it gives up.
        ("GET", "/v0/runs/{}/actions", 410),
        ("GET", "/v0/runs/{}/batch", 410),
    ):
        theirs, nobodys = (other.call(method, path.format(run_id)) for run_id in (sleeping.run_id, UNKNOWN))
        assert (path, theirs.status_code, nobodys.status_code) == (path, status, status)
        said = [{**answer.json(), "request_id": None} for answer in (theirs, nobodys)]
        assert said[0] == said[1], "the answer tells nothing about the run of another"
    assert other.call("GET", f"/v1/events/{sleeping.event_id}").status_code == 404
    assert other.call("GET", f"/v1/events/{sleeping.event_id}/runs").json()["data"] == []
    assert world.api.run(sleeping.run_id)["status"] == "Running"


def test_a_cancelled_run_ends_at_once_and_its_next_step_never_runs(world: World) -> None:
    sleeping = put_to_sleep(world, "k-cancelled")

    answer = world.api.call("DELETE", f"/v1/runs/{sleeping.run_id}")

    assert answer.status_code in {200, 202, 204}, answer.text
    run = world.api.await_end(sleeping.event_id)
    assert run["status"] == "Cancelled"
    assert [line["step"] for line in sleeping.app.effects(sleeping.key)] == ["before"]


def test_cancelling_a_run_that_is_over_changes_nothing(world: World) -> None:
    sleeping = put_to_sleep(world, "k-cancelled-twice")
    first = world.api.call("DELETE", f"/v1/runs/{sleeping.run_id}")
    before = world.api.await_end(sleeping.event_id)

    again = world.api.call("DELETE", f"/v1/runs/{sleeping.run_id}")

    assert again.status_code == first.status_code
    assert world.api.run(sleeping.run_id) == before


@pytest.mark.parametrize("run_id", [UNKNOWN, "not-a-run", "%00"])
def test_an_unknown_run_is_not_found(world: World, run_id: str) -> None:
    assert world.api.call("GET", f"/v1/runs/{run_id}").status_code == 404
    assert world.api.call("DELETE", f"/v1/runs/{run_id}").status_code == 404
