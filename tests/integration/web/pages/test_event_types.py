"""Event types: names that came, names that functions wait for, and who listens to which."""

import re
from typing import Any

from tests.integration.web.pages.people import Person, store_event, store_function


async def test_names_stand_with_their_numbers_and_the_functions_that_listen(ada: Person, owner: Any) -> None:
    await store_function(owner, ada.tenant, "pack", triggers=[{"event": "order/*"}])
    await store_function(owner, ada.tenant, "greet", triggers=[{"event": "user/joined"}])
    for name in ("order/placed", "order/placed", "cart/left", "inngest/function.finished"):
        await store_event(owner, ada.tenant, name)
    page = (await ada.get("/event-types")).text
    rows = dict(re.findall(r'\?name=([^"]+)">.*?</a></span></td>(.*?)</tr>', page, re.DOTALL))
    assert set(rows) == {"order/placed", "cart/left", "user/joined"}
    assert ">2<" in rows["order/placed"]
    assert "shop-pack" in rows["order/placed"]
    assert "nobody listens" in rows["cart/left"]
    assert "none yet" in rows["user/joined"]
    assert "shop-greet" in rows["user/joined"]
