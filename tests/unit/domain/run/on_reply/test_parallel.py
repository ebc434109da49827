"""Steps at once: the plan flag, the group, races (protocol 13.4)."""

from app.domain.run.effects import CloseGroup, LeaveGroup, OpenGroup, SetPlanned
from tests.unit.domain.run.scene import Scene, enqueued, planned, ran, sleeping, waiting


def test_a_group_calls_the_app_once_after_its_last_member() -> None:
    scene = Scene()
    effects = scene.reply("start", planned("a"), planned("b"), sleeping("z"))
    group = next(effect for effect in effects if isinstance(effect, OpenGroup))
    assert group.size == scene.run.pending == 3
    assert scene.run.is_planned
    assert enqueued(scene.reply("step:b", ran("b"))) == []
    assert enqueued(scene.time("sleep:z")) == []
    last = scene.reply("step:a", ran("a"))
    assert enqueued(last) == [f"discover:group:{group.group}"]
    assert CloseGroup() in last
    assert SetPlanned(is_planned=False) in last
    assert not scene.run.is_planned


def test_the_group_key_does_not_depend_on_the_order_of_the_ops() -> None:
    first, second = Scene(), Scene()
    first.reply("start", planned("a"), planned("b"))
    second.reply("start", planned("b"), planned("a"))
    assert first.run.group == second.run.group is not None


def test_version_1_has_no_group_and_keeps_the_flag() -> None:
    scene = Scene(version=1)
    scene.reply("start", planned("a"), planned("b"))
    assert scene.run.group is None
    assert enqueued(scene.reply("step:a", ran("a"))) == ["discover:1"]
    assert enqueued(scene.reply("step:b", ran("b"))) == ["discover:2"]
    assert scene.run.is_planned


def test_only_sleeps_and_waits_make_no_group() -> None:
    scene = Scene()
    scene.reply("start", sleeping("z"), waiting("w"))
    assert scene.run.group is None
    assert scene.run.is_planned
    assert enqueued(scene.time("sleep:z")) == ["discover:1"]
    assert enqueued(scene.resume("w")) == ["discover:2"]


def test_a_race_calls_the_app_after_every_completion() -> None:
    scene = Scene()
    scene.reply("start", planned("a", is_race=True), planned("b", is_race=True))
    assert enqueued(scene.reply("step:b", ran("b"))) == ["discover:race:b"]
    assert enqueued(scene.reply("step:a", ran("a"))) == ["discover:race:a"]
    assert scene.run.group is None


def test_steps_stay_planned_while_two_discoveries_could_run_the_same_one_inline() -> None:
    scene = Scene()
    scene.reply("start", planned("a", is_race=True), planned("b", is_race=True))
    scene.reply("step:a", ran("a"))
    scene.reply("step:b", ran("b"))
    assert len(scene.items) == 2
    assert scene.run.is_planned
    scene.reply("discover:race:a", planned("c"))
    scene.reply("discover:race:b", planned("c"))
    scene.reply("step:c", ran("c"))
    assert not scene.run.is_planned


def test_siblings_reported_again_are_not_planned_again() -> None:
    scene = Scene(version=1)
    scene.reply("start", planned("a"), planned("b"))
    scene.reply("step:a", ran("a"))
    assert enqueued(scene.reply("discover:1", planned("b"))) == []


def test_a_new_branch_does_not_wait_for_a_sibling_reported_again() -> None:
    scene = Scene()
    scene.reply("start", planned("a", is_race=True), planned("b", is_race=True))
    scene.reply("step:a", ran("a"))
    scene.reply("discover:race:a", planned("c"), planned("b", is_race=True))
    assert enqueued(scene.reply("step:c", ran("c"))) == ["discover:2"]


def test_a_younger_group_lets_members_of_the_older_one_go_on_alone() -> None:
    scene = Scene()
    scene.reply("start", planned("a", is_race=True), planned("b", is_race=True), sleeping("z"))
    scene.reply("step:a", ran("a"))
    effects = scene.reply("discover:race:a", planned("c"), planned("d"))
    assert [effect for effect in effects if isinstance(effect, LeaveGroup)] == [LeaveGroup("b"), LeaveGroup("z")]
    assert scene.run.pending == 2
    assert enqueued(scene.time("sleep:z")) == ["discover:2"]
    assert enqueued(scene.reply("step:c", ran("c"))) == []
    assert len(enqueued(scene.reply("step:d", ran("d")))) == 1
