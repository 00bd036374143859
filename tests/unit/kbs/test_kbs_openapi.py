# SPDX-License-Identifier: Apache-2.0
"""The description of the key broker's interface says what its router does."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from _kbs import URL, kbs_in_process
from starlette.responses import Response
from starlette.routing import Route

from cocos.errors import InternalError
from cocos.kbs.openapi import about
from cocos.transport.openapi import document
from cocos.transport.web import WebApp


async def described(folder: Path) -> tuple[WebApp, dict[str, Any]]:
    async with kbs_in_process(folder) as kbs:
        async with httpx.AsyncClient(transport=kbs.transport(), base_url=URL) as http:
            answer = await http.get("/openapi.json")
        assert answer.headers["content-type"] == "application/json"
        assert isinstance(kbs.app, WebApp)
        return kbs.app, answer.json()


async def test_every_route_and_nothing_else(tmp_path: Path) -> None:
    app, text = await described(tmp_path)
    served = {
        (re.sub(r":path\}", "}", route.path), method)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    found = {
        (path.replace("{repository}/{type}/{tag}", "{path}"), method.upper())
        for path, item in text["paths"].items()
        for method in item
    }
    assert found == served
    assert ("/kbs/v0/attest", "POST") in found
    assert ("/openapi.json", "GET") in found


async def test_administrators_routes_name_their_scheme(tmp_path: Path) -> None:
    _, text = await described(tmp_path)
    schemes = text["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {
        "admin": "http",
        "session": "apiKey",
        "token": "http",
    }
    resource = text["paths"]["/kbs/v0/resource/{repository}/{type}/{tag}"]
    assert resource["get"]["security"] == [{"session": []}, {"token": []}]
    for path, item in text["paths"].items():
        for method, what in item.items():
            public = path.endswith(("/auth", "/attest")) or not path.startswith("/kbs/v0/")
            guest = what is resource["get"]
            assert public or guest or what["security"] == [{"admin": []}], (path, method)


async def test_schemas_are_those_of_the_wire(tmp_path: Path) -> None:
    _, text = await described(tmp_path)
    schemas = text["components"]["schemas"]
    assert schemas["Challenge"]["required"] == ["nonce"]
    assert "extra-params" in schemas["Request"]["properties"]
    assert schemas["Problem"]["required"] == ["type", "detail"]
    refusal = text["paths"]["/kbs/v0/attest"]["post"]["responses"]["401"]["content"]
    assert refusal == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }


def test_a_handler_that_does_not_say_what_it_does_is_found() -> None:
    async def silent(_request: object) -> Response:
        return Response()

    with pytest.raises(InternalError, match="/silent"):
        document([Route("/silent", silent)], about())
