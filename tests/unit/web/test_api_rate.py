"""The allowance of a key: so many in a minute, then at an even pace, and nobody pays for another."""

from app.web.api.rate import ApiRate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_may_spend_its_minute_at_once_and_then_goes_on_at_an_even_pace() -> None:
    clock = Clock()
    rate = ApiRate(now=clock)
    asked = [rate.ask("a", 600) for _ in range(601)]
    assert [passes for passes, _ in asked] == [True] * 600 + [False]
    assert [usage.rest for _, usage in asked][:2] == [599, 598]
    assert (asked[-1][1].rest, asked[-1][1].reset_s) == (0, 1)
    clock.now += 1.0
    assert [rate.ask("a", 600)[0] for _ in range(11)] == [True] * 10 + [False]


def test_keys_do_not_share_and_a_quiet_minute_gives_everything_back() -> None:
    clock = Clock()
    rate = ApiRate(now=clock)
    assert [rate.ask("a", 2)[0] for _ in range(3)] == [True, True, False]
    assert rate.ask("b", 2)[0]
    clock.now += 60
    passes, usage = rate.ask("a", 2)
    assert (passes, usage.rest) == (True, 1)


def test_only_so_many_keys_are_remembered() -> None:
    rate = ApiRate(now=Clock(), most=3)
    for n in range(10):
        rate.ask(str(n), 1)
    assert not rate.ask("9", 1)[0]
    assert rate.ask("0", 1)[0]
