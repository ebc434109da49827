"""The template engine: autoescape always on, undefined names are errors, filters from `words`, the global `asset()`."""

from pathlib import Path
from typing import Any

import jinja2
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig

from app.web import words
from app.web.assets import Assets
from app.web.json_tree import parse_tree

#: Beside the package in a checkout and in an installed wheel alike.
TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


def make_environment(assets: Assets, root: Path = TEMPLATES, *, auto_reload: bool = False) -> jinja2.Environment:
    """The Jinja environment of every page, fragment and test."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=auto_reload,
    )
    environment.globals["asset"] = assets.url
    environment.globals["json_tree"] = parse_tree
    environment.filters.update(
        duration=words.duration,
        band=words.band,
        log_share=words.log_share,
        axis_time=words.axis_time,
        count=words.count,
        percent=words.percent,
        size=words.size,
        ago=words.ago,
        iso=words.iso,
        clock_time=words.clock_time,
        full_time=words.full_time,
        moment=words.moment,
        visible=words.visible,
        short=words.short,
    )
    return environment


def template_config(assets: Assets, *, auto_reload: bool = False) -> TemplateConfig[Any]:
    """What `Litestar(template_config=…)` takes; the app also sets `state.assets = assets`."""
    return TemplateConfig(
        instance=JinjaTemplateEngine.from_environment(make_environment(assets, auto_reload=auto_reload))
    )
