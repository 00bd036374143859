# SPDX-License-Identifier: Apache-2.0
"""Whatever the description of the interface allows or forbids, the real KBS answers as it says."""

import asyncio
import datetime as dt
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from _kbs_program import start_kbs
from _through import Through
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from cocos.attesters import InsecureSampleAttester
from cocos.clients.kbs import KbsClient
from cocos.crypto import admin_jwt
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/one")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    ignored_auth,
]
EXAMPLES = 8


def probe(url: str, headers: dict[str, str]) -> set[str]:
    """Call every operation with bodies and parameters of both kinds; return what was called."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    called = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=EXAMPLES,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: schemathesis.Case[Any]) -> None:
                case.call_and_validate(headers=headers, checks=CHECKS)

            if mode is GenerationMode.POSITIVE or operation.body or operation.query:
                one()
        called.add(operation.label)
    return called


class Recorded(httpx.AsyncHTTPTransport):
    """Keeps every answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[httpx.Response] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        await answer.aread()
        answer.request = request
        self.answers.append(answer)
        return answer


def check(url: str, answers: list[httpx.Response]) -> list[str]:
    """Check answers against what the description says of them; return what was asked for."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    asked = []
    for answer in answers:
        path = answer.request.url.path.replace(str(KEY), "{repository}/{type}/{tag}")
        operation = schema[path][answer.request.method]
        answer.elapsed = dt.timedelta()  # schemathesis wants one
        operation.validate_response(answer)
        documented = operation.definition.raw["responses"]
        assert str(answer.status_code) in documented
        asked.append(f"{answer.status_code} {operation.label}")
    return asked


@pytest.fixture
def _sockets() -> Iterator[None]:
    """Close what schemathesis leaves to the collector, before another test has to answer for it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.usefixtures("_sockets")
async def test_the_description_holds(tmp_path: Path) -> None:
    async with start_kbs(tmp_path, "--insecure-allow-sample") as kbs:
        await kbs.store(KEY, b"a key")
        token = admin_jwt.mint(kbs.pem, now=dt.datetime.now(dt.UTC))
        recorded = Recorded()
        evidence = InsecureSampleAttester()
        async with KbsClient(kbs.url, evidence, transport=Through(recorded, kbs.url)) as client:
            await client.get_resource(ResourceUri.parse(KEY.uri))
        asked = await asyncio.to_thread(check, kbs.url, recorded.answers)
        resource = "/kbs/v0/resource/{repository}/{type}/{tag}"
        assert asked == [
            "200 POST /kbs/v0/auth",
            "200 POST /kbs/v0/attest",
            f"200 GET {resource}",
        ]
        called = await asyncio.to_thread(probe, kbs.url, {"Authorization": f"Bearer {token}"})
        assert f"DELETE {resource}" in called
        assert "internal error" not in kbs.program.text
