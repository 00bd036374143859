# SPDX-License-Identifier: Apache-2.0
"""Where relying parties look for keys: no header of a stranger leads anybody else there."""

import pytest
from _meter import call
from starlette.types import ASGIApp

from cocos.kbs.well_known import DISCOVERY_PATH, JWKS_PATH, well_known_routes
from cocos.transport.web import WebApp
from cocos.wire import json


class Keys:
    async def published(self) -> dict[str, list[str]]:
        return {"keys": []}


def app(issuer: str) -> ASGIApp:
    return WebApp(well_known_routes(Keys(), issuer=issuer))


FORGED = [
    {"host": "evil.test"},
    {"host": "kbs.test", "x-forwarded-host": "evil.test", "forwarded": "host=evil.test"},
    {"host": "kbs.test", "x-forwarded-proto": "gopher", "x-original-url": "http://evil.test/"},
]


@pytest.mark.parametrize("headers", FORGED)
@pytest.mark.parametrize("issuer", ["https://kbs.example", "https://kbs.example/"])
async def test_an_issuer_with_a_url_names_its_keys_by_it(
    issuer: str, headers: dict[str, str]
) -> None:
    answer, _ = await call(app(issuer), "GET", DISCOVERY_PATH, headers)
    document: dict[str, object] = json.decode(answer.body, dict[str, object], "it")
    assert document["jwks_uri"] == "https://kbs.example/.well-known/jwks.json"
    assert document["issuer"] == issuer
    assert b"evil" not in answer.body
    assert "public" in answer.headers["cache-control"]


@pytest.mark.parametrize("headers", FORGED)
@pytest.mark.parametrize("issuer", ["CoCo-Attestation-Service", "http://", "https:///x", "x://y"])
async def test_what_a_header_said_is_kept_by_no_cache(issuer: str, headers: dict[str, str]) -> None:
    answer, _ = await call(app(issuer), "GET", DISCOVERY_PATH, headers)
    document: dict[str, object] = json.decode(answer.body, dict[str, object], "it")
    assert document["jwks_uri"] == f"http://{headers['host']}{JWKS_PATH}"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["[", "a b", "a/b", "a@b", "a?b", "a#b", "", "a\\b", "a:b", "a,b", "[::1", "x" * 300]
)
async def test_what_is_no_host(host: str) -> None:
    answer, _ = await call(app("no URL"), "GET", DISCOVERY_PATH, {"host": host})
    assert answer.status == 400


@pytest.mark.parametrize("host", ["kbs", "kbs.test:8080", "[::1]:8080", "10.0.0.1", "a-b_c.d"])
async def test_what_is_one(host: str) -> None:
    answer, _ = await call(app("no URL"), "GET", DISCOVERY_PATH, {"host": host})
    assert answer.status == 200


async def test_keys_may_be_kept() -> None:
    answer, _ = await call(app("x"), "GET", JWKS_PATH, {"host": "evil.test"})
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.body == b'{"keys":[]}'
