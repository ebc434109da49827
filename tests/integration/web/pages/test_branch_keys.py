"""The key pages of a branch: it has no keys of its own, and the page says whose open it."""

from typing import Any
from uuid import uuid4

from tests.integration.web.pages.people import Person


async def test_the_key_pages_of_a_branch_lead_to_its_parents_keys(ada: Person, owner: Any) -> None:
    account, parent = ada.tenant.account_id, uuid4()
    await owner.execute(
        "insert into environments (id, account_id, name, slug, kind) values ($1, $2, 'Branches', 'branches', 'branch')",
        parent, account,
    )  # fmt: skip
    await owner.execute(
        "insert into environments (id, account_id, name, slug, kind, parent_id) values ($1, $2, 'fix-it', 'fix-it', 'branch', $3)",
        uuid4(), account, parent,
    )  # fmt: skip
    for kind in ("events", "signing"):
        page = (await ada.client.get(f"/env/fix-it/keys/{kind}")).text
        assert f'href="/env/branches/keys/{kind}"' in page
        assert "Branches" in page
        assert "opened by the keys" not in (await ada.client.get(f"/env/branches/keys/{kind}")).text
