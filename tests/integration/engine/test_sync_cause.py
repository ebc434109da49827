"""The guide's verdicts: for everything that goes wrong in practice, its own cause and its own way out."""

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.adapters.http import Answer, CallFailed, Kind
from app.engine.sync import SyncFailed
from app.engine.sync_cause import find_cause

KEY = "signkey-prod-" + "ab" * 32
REFUSED = SyncFailed("sig_verification_failed", "The app refused our signature.", "Set the key.")
SILENT = SyncFailed("http_not_ok", "The app answered HTTP 500, and no functions arrived.", "Check.", {"status": 500})


@dataclass
class App:
    """Answers introspection; `fails` instead of answering."""

    status: int = 200
    said: dict[str, Any] = field(default_factory=dict)
    sdk: str = "inngest-py:v0.5.19"
    ahead_s: float = 0.0
    fails: Kind | None = None

    async def call(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float, max_body: int = 0
    ) -> Answer:
        assert method == "GET", "nothing runs to find a cause"
        if self.fails:
            raise CallFailed(self.fails)
        date = email.utils.formatdate(time.time() + self.ahead_s, usegmt=True)
        return Answer(self.status, {"x-inngest-sdk": self.sdk, "date": date}, json.dumps(self.said).encode(), 1.0)

    async def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("failed", "app", "kind", "code", "words"),
    [
        (SyncFailed("http_unreachable", "No.", "", {"kind": "app_unreachable"}), App(), "cloud", "unreachable", "Start the app"),
        (SyncFailed("http_unreachable", "No.", "", {"kind": "app_address_blocked"}), App(), "cloud", "unreachable", "STEPWELL_ALLOW_PRIVATE_APPS"),
        (SyncFailed("http_unreachable", "No.", "", {"kind": "app_url_invalid"}), App(), "cloud", "plain_http", "STEPWELL_ALLOW_PRIVATE_APPS=1"),
        (SyncFailed("http_not_ok", "404", "", {"status": 404}), App(), "cloud", "not_found", "/api/inngest"),
        (SyncFailed("not_sdk", "No SDK.", "Check that the URL is right."), App(), "cloud", "not_sdk", "Check that the URL"),
        (REFUSED, App(401), "cloud", "wrong_key", "Copy INNGEST_SIGNING_KEY"),
        (REFUSED, App(401, ahead_s=600), "cloud", "clock", "10 minutes ahead"),
        (REFUSED, App(401, ahead_s=-900), "cloud", "clock", "15 minutes behind"),
        (REFUSED, App(said={"mode": "dev"}), "cloud", "wrong_mode", "INNGEST_DEV=0"),
        (REFUSED, App(said={"mode": "cloud", "has_signing_key": False}), "cloud", "no_key", "INNGEST_SIGNING_KEY"),
        (REFUSED, App(sdk="inngest-js:v2.7.1"), "cloud", "too_old", "version 2.7"),
        (SILENT, App(401), "dev", "wrong_mode", "INNGEST_DEV=http://here"),
        (SILENT, App(said={"mode": "cloud", "has_signing_key": True}), "cloud", "no_answer", "http://here"),
        (SILENT, App(fails="app_timeout"), "cloud", "http_not_ok", "HTTP 500"),
        (SyncFailed("slug_taken", "Another app has it.", "Change it."), App(), "cloud", "slug_taken", "Another app"),
    ],
)  # fmt: skip
async def test_every_failure_has_its_cause_and_its_fix(
    failed: SyncFailed, app: App, kind: str, code: str, words: str
) -> None:
    keys = [KEY] if kind == "cloud" else []
    cause = await find_cause(app, "http://app/api", failed, keys=keys, server_kind=kind, base_url="http://here")
    assert cause.code == code
    assert words in f"{cause.what} {cause.fix}"
    assert cause.title
    assert cause.fix


async def test_a_url_that_no_setting_would_admit_is_not_blamed_on_tls() -> None:
    failed = SyncFailed("http_unreachable", "No.", "", {"kind": "app_url_invalid"})
    for url in ("http://me:secret@app/api", "ftp://app/api", "app.example.com/api", "http://app:22/api"):
        cause = await find_cause(App(), url, failed, keys=[KEY], server_kind="cloud", base_url="http://here")
        assert (cause.code, "Write the whole URL" in cause.fix) == ("unreachable", True)
