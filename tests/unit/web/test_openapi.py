"""The OpenAPI document tells of every address of the API, and of nothing else."""

import re
from typing import Any

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from app.main import create_app
from app.web.api import openapi
from tests.integration.web.site import settings_for


@pytest.fixture(scope="module")
def app() -> Litestar:
    return create_app(settings_for("postgresql://nobody@127.0.0.1:1/none"))


@pytest.fixture(scope="module")
def document(app: Litestar) -> dict[str, Any]:
    return openapi.document(app)


def test_every_address_of_the_api_is_in_it_with_a_sentence(app: Litestar, document: dict[str, Any]) -> None:
    wanted = {
        (method.lower(), route.path_format)
        for route in app.routes
        if isinstance(route, HTTPRoute) and re.match(r"/(v\d|fn|invoke)/", route.path_format)
        for method in route.methods - {"OPTIONS", "HEAD"}
    }
    told = {(method, path) for path, operations in document["paths"].items() for method in operations}
    assert len(wanted) > 30
    assert wanted <= told
    assert ("post", "/e/{event_key}") in told
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"].endswith((".", "),", ")", "?")) or len(operation["summary"]) > 20


def test_the_tables_of_queries_and_bodies_name_only_addresses_that_exist(document: dict[str, Any]) -> None:
    told = {f"{m.upper()} {path}" for path, operations in document["paths"].items() for m in operations}
    assert set(openapi.QUERIES) <= told
    assert set(openapi.BODIES) <= told


def test_each_parameter_of_a_path_is_described_and_ids_are_unique(document: dict[str, Any]) -> None:
    ids = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            ids.append(operation["operationId"])
            described = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert described == set(re.findall(r"\{(\w+)\}", path))
    assert len(ids) == len(set(ids))
