"""What the documentation promises to list, it lists."""

import inspect
import re
from pathlib import Path

from app.accounts import members, provider_refusals
from app.adapters import oauth
from app.config import KNOWN
from app.domain.providers import ProviderDown

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_setting_is_documented_with_what_it_expects() -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    missing = [k.name for k in KNOWN if f"| `{k.name}` | {k.expects} | {k.default} |" not in text]
    assert not missing


def test_decision_records_are_numbered_without_gaps_and_say_what_holds_them() -> None:
    records = sorted((DOCS / "adr").glob("*.md"))
    assert [int(r.name[:4]) for r in records] == list(range(1, len(records) + 1))
    assert [r.name for r in records if "**Held by.**" not in r.read_text(encoding="utf-8")] == []


def test_every_code_of_a_login_through_a_provider_is_documented() -> None:
    text = (DOCS / "login.md").read_text(encoding="utf-8")
    told = {
        *re.findall(r'super\(\).__init__\("(\w+)"', inspect.getsource(provider_refusals)),
        *re.findall(r'(?:_refuse|AnswerRefused)\(\s*"(\w+)"', inspect.getsource(oauth)),
        ProviderDown().code,
        members.InvitationOver().code,
    }
    assert len(told) > 15
    assert [code for code in sorted(told) if f"`{code}`" not in text] == []
