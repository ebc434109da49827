"""The browser's files: complete, hashed, within their budget, and as published."""

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.web.assets import STATIC, Assets
from app.web.templates import TEMPLATES

ROOT = STATIC.parent


@pytest.fixture(scope="module")
def assets() -> Assets:
    return Assets()


def test_a_changed_file_changes_every_address(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a{}")
    before = Assets(tmp_path).url("a.css")
    (tmp_path / "a.css").write_text("b{}")
    assert Assets(tmp_path).url("a.css") != before


def test_a_watched_folder_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a{}")
    assets = Assets(tmp_path, watches=True)
    before = assets.url("a.css")
    (tmp_path / "b.css").write_text("b{}")
    assert assets.url("a.css") != before


def test_lists_of_imports_are_joined(assets: Assets) -> None:
    style, script = assets.find("css/app.css"), assets.find("js/app.js")
    assert style is not None
    assert script is not None
    assert b"@import" not in style.content
    assert b"\nimport " not in script.content
    assert b"@layer tokens" in style.content


def test_the_shell_keeps_its_budget(assets: Assets) -> Any:
    def wire(*names: str) -> int:
        files = [assets.find(name) for name in names]
        return sum(len(f.packed or f.content) for f in files if f is not None)

    scripts = wire(
        "vendor/htmx-4.0.1/htmx.min.js",
        "vendor/htmx-4.0.1/hx-sse.min.js",
        "vendor/htmx-4.0.1/hx-preload.min.js",
        "js/app.js",
    )
    rest = wire(
        "css/app.css",
        "icons/icons.svg",
        "fonts/geist-latin-wght-normal.woff2",
        "fonts/geist-mono-latin-wght-normal.woff2",
    )
    assert scripts <= 24 * 1024
    assert rest <= 75 * 1024


def test_no_path_leaves_the_folder(assets: Assets) -> None:
    assert assets.find("../app/main.py") is None
    assert assets.find("/etc/passwd") is None


@pytest.mark.parametrize("manifest", sorted(ROOT.glob("*/vendor/*/manifest.json")), ids=lambda p: p.parent.name)
def test_vendored_files_are_the_ones_that_were_published(manifest: Path) -> None:
    sums = json.loads(manifest.read_text())["sha256"]
    assert any(name.startswith("LICENSE") for name in sums)
    for name, expected in sums.items():
        assert hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest() == expected


def test_every_icon_a_template_names_is_in_the_sprite() -> None:
    sprite = (STATIC / "icons/icons.svg").read_text()
    known = set(re.findall(r'<symbol id="([^"]+)"', sprite))
    for path in TEMPLATES.rglob("*.html"):
        named = set(re.findall(r"icon\('([a-z0-9-]+)'", path.read_text()))
        assert named <= known, path


def test_templates_hold_nothing_the_policy_forbids() -> None:
    for path in TEMPLATES.rglob("*.html"):
        text = path.read_text()
        assert "|safe" not in text.replace(" ", ""), path
        assert not re.search(r"\son[a-z]+=|\sstyle=|<style|hx-on|<script(?![^>]*\ssrc=)", text), path


def test_packed_files_unpack_to_themselves(assets: Assets) -> None:
    style = assets.find("css/app.css")
    assert style is not None
    assert style.packed is not None
    assert gzip.decompress(style.packed) == style.content
