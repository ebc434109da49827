"""`stepwell plan`: an operator gives a plan by hand, and takes it back."""

from pathlib import Path
from typing import Any

from tests.integration.accounts.world import new_tenant
from tests.integration.cli.test_up import run


async def test_a_plan_is_shown_given_and_taken_back(open_folder: Path, database: str) -> None:
    made = await new_tenant(database)
    slug = made["organization_slug"]
    given = {"DATABASE_URL": database, "STEPWELL_SECRET_KEY": "0123456789abcdef" * 4, "STEPWELL_HOSTED": "1"}

    def plan(*words: str) -> tuple[int, str]:
        done: Any = run(open_folder, "plan", *words, **given)
        assert "Traceback" not in done.stderr
        return done.returncode, (done.stdout or done.stderr).strip()

    assert plan(slug) == (0, f"{slug}: self_hosted")
    assert plan(slug, "business") == (0, f"{slug}: business")
    assert plan(slug, "--take-back") == (0, f"{slug}: free")
    assert plan(slug, "platinum") == (
        1,
        "Error: There is no such plan. Choose one of: self_hosted, free, pro, business.",
    )
    assert plan("nobody-has-this")[0] == 1
