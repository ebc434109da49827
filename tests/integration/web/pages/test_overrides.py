"""Live changes on a function's Configuration tab: forms, what is refused, what is shown, and who may."""

import re
from typing import Any

from app.domain.flow.concurrency import named_limits
from app.domain.ids import FunctionId
from app.domain.protocol.function_config import read_stored
from tests.integration.web.pages.people import HOSTILE, make_role, store_function

LIMITS = {
    "concurrency": [{"limit": 5, "key": "event.data.user"}],
    "throttle": {"limit": 3, "period": "10s", "burst": 2},
}
PAGE = "/functions/shop-charge"


async def limited(owner: Any, who: Any) -> Any:
    """A function with two limits, as a sync leaves it."""
    function = await store_function(owner, who, "charge", **LIMITS)
    text = await owner.fetchval("select config from functions where id = $1", function.id)
    for limit in named_limits(FunctionId(function.id), read_stored(text.encode())).values():
        await owner.execute(
            "insert into flow_limits (id, account_id, environment_id, function_id, kind, cap, every)"
            " select $1, f.account_id, f.environment_id, f.id, $2, $3, $4 from functions f where f.id = $5",
            limit.id, str(limit.kind), limit.cap, limit.every, function.id,
        )  # fmt: skip
    return function


def text_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


async def test_a_limit_is_changed_shown_with_its_end_and_ended(ada: Any, owner: Any) -> None:
    function = await limited(owner, ada.tenant)
    tab = text_of(await ada.get(f"{PAGE}/config"))
    assert "Nothing is changed: what the code says holds." in tab
    assert "5 at once for each value" in tab
    form = await ada.get(f"{PAGE}/overrides/new?what=limit:throttle")
    assert re.search(r'name="period"[^>]*value="10s"', form.text)
    answer = await ada.post(
        f"{PAGE}/overrides", what="limit:concurrency", allowed="2", expires_in="4h", reason="the bank is slow"
    )
    assert answer.status_code == 303
    tab = text_of(await ada.get(f"{PAGE}/config"))
    assert re.search(r"concurrency 2 at once ends in 3 h 59 min|concurrency 2 at once ends in", tab)
    assert f"by {ada.made['user']}: the bank is slow" in tab
    assert "5 at once for each value in the code" in tab
    assert (
        await owner.fetchval("select own_cap from flow_limits where kind = 'calls' and function_id = $1", function.id)
        == 2
    )
    (override,) = await owner.fetch("select id from overrides where function_id = $1", function.id)
    assert (await ada.post(f"{PAGE}/overrides/{override['id']}/end")).status_code == 303
    assert (await ada.post(f"{PAGE}/overrides/{override['id']}/end")).status_code == 303
    tab = text_of(await ada.get(f"{PAGE}/config"))
    assert "Nothing is changed" in tab
    assert f"ended now by {ada.made['user']}" in tab or f"by {ada.made['user']}" in tab
    told = await owner.fetch(
        "select action from audit_log where action like 'override.%' and account_id = $1 order by at",
        ada.tenant.account_id,
    )
    assert [row["action"] for row in told] == ["override.set", "override.ended"]


async def test_a_key_the_function_and_the_waits_can_be_set(ada: Any, owner: Any) -> None:
    await limited(owner, ada.tenant)
    for fields in (
        {"what": "key:concurrency", "key": HOSTILE, "expires_in": "1h"},
        {"what": "hold", "expires_in": "15m"},
        {"what": "retry", "initial": "5s", "factor": "1.5", "cap": "10m"},
    ):
        assert (await ada.post(f"{PAGE}/overrides", **fields)).status_code == 303
    page = await ada.get(f"{PAGE}/config")
    assert "<script>alert" not in page.text
    tab = text_of(page)
    assert "the function held ends in" in tab
    assert "5 s, times 1.5, at most 10 min until somebody ends it" in tab
    assert (
        await owner.fetchval(
            "select cap from flow_keys where cap is not null and account_id = $1", ada.tenant.account_id
        )
        == 0
    )


REFUSED = (
    ({"what": "limit:concurrency", "allowed": "-1", "expires_in": "1h"}, "allowed", "A whole number is expected."),
    ({"what": "limit:concurrency", "allowed": "", "expires_in": "1h"}, "allowed", "A whole number is expected."),
    ({"what": "limit:concurrency", "allowed": "1", "expires_in": "9d9"}, "expires_in", "A length of time"),
    ({"what": "limit:concurrency", "allowed": "1", "expires_in": "60d"}, "expires_in", "one minute to 30 days"),
    ({"what": "limit:throttle", "allowed": "0", "period": "1m", "burst": "0", "expires_in": "1h"}, "allowed", "from 1"),
    ({"what": "limit:throttle", "allowed": "1", "period": "9d", "burst": "0", "expires_in": "1h"}, "period", "1 s to 7 d"),
    ({"what": "key:concurrency", "key": "", "expires_in": "1h"}, "key", "Which key"),
    ({"what": "retry", "initial": "5s", "factor": "fast", "cap": "1h"}, "factor", "A number is expected"),
    ({"what": "retry", "initial": "5s", "factor": "0", "cap": "1h"}, "factor", "from 1 to 100"),
    ({"what": "retry", "initial": "2h", "factor": "2", "cap": "1h"}, "initial", "shorter than the first"),
)  # fmt: skip


async def test_a_form_that_fails_comes_back_with_its_values_and_a_sentence(ada: Any, owner: Any) -> None:
    function = await limited(owner, ada.tenant)
    for fields, name, said in REFUSED:
        answer = await ada.post(f"{PAGE}/overrides", reason="kept", **fields)
        assert answer.status_code == 422
        assert said in answer.text
        assert f'href="#{name}"' in answer.text
        assert 'value="kept"' in answer.text
    assert await owner.fetchval("select count(*) from overrides where function_id = $1", function.id) == 0


async def test_what_is_no_change_is_not_found_and_viewers_only_look(ada: Any, owner: Any) -> None:
    await limited(owner, ada.tenant)
    for what in ("", "limit:runs", "hold:x", "limit", "key:the plan"):
        assert (await ada.get(f"{PAGE}/overrides/new?what={what}")).status_code == 404
        assert (await ada.post(f"{PAGE}/overrides", what=what)).status_code == 404
    assert (await ada.post(f"{PAGE}/overrides/x/end")).status_code == 404
    await make_role(owner, ada.made, "viewer")
    assert (await ada.post(f"{PAGE}/overrides", what="hold", expires_in="1h")).status_code == 403
    assert "/overrides/new" not in (await ada.get(f"{PAGE}/config")).text


async def test_a_function_without_a_limit_gets_one_on_its_page(ada: Any, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "charge")
    page = await ada.get(f"{PAGE}/config")
    assert "Concurrency no limit" in text_of(page)
    assert "what=limit:concurrency" in page.text
    assert "what=key:concurrency" not in page.text
    assert "The code sets none: this one is over all calls of the function." in text_of(
        await ada.get(f"{PAGE}/overrides/new?what=limit:concurrency")
    )
    assert (await ada.get(f"{PAGE}/overrides/new?what=key:concurrency")).status_code == 404
    answer = await ada.post(f"{PAGE}/overrides", what="limit:concurrency", allowed="2", expires_in="4h")
    assert answer.status_code == 303
    assert "no limit in the code" in text_of(await ada.get(f"{PAGE}/config"))
    (override,) = await owner.fetch("select id from overrides where function_id = $1", function.id)
    assert (await ada.post(f"{PAGE}/overrides/{override['id']}/end")).status_code == 303
    assert await owner.fetchval("select count(*) from flow_limits where function_id = $1", function.id) == 0
