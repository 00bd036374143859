# SPDX-License-Identifier: Apache-2.0
"""Traces of the real KBS, received over a real socket as a collector gets them."""

import base64
import contextlib
import http.server
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from _kbs_program import start_kbs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cocos.attesters import InsecureSampleAttester
from cocos.clients.kbs import KbsClient
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/hidden-name")
SECRET = b"never in a trace"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector:
    """What an OTLP receiver has received."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[bytes] = []
        self.headers: list[str] = []

    @property
    def spans(self) -> list[Span]:
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {each.key: each.value.string_value for each in resource.resource.attributes}
                assert names["service.name"] == "kbs"
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.bodies.append(body)
            found.headers.append(f"{self.path} {self.headers['x-tenant']}")
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, str]:
    return {
        each.key: each.value.string_value for each in span.attributes if each.value.string_value
    }


async def test_spans_of_a_handshake(tmp_path: Path) -> None:
    with collector() as received:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=ours",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        }
        async with start_kbs(tmp_path, "--insecure-allow-sample", env=environment) as kbs:
            await kbs.store(KEY, SECRET)
            async with KbsClient(kbs.url, InsecureSampleAttester()) as client:
                assert await client.get_resource(ResourceUri.parse(KEY.uri)) == SECRET
            cookie = secrets.token_hex(16)
            async with httpx.AsyncClient(base_url=kbs.url) as http:
                headers = {
                    "traceparent": f"00-{TRACE}-{PARENT}-01",
                    "cookie": f"kbs-session-id={cookie}",
                }
                await http.get(f"/kbs/v0/resource/{KEY}", headers=headers)
        log = kbs.program.text
    assert set(received.headers) == {"/v1/traces ours"}
    spans = received.spans
    by_name = {span.name: span for span in spans}
    route = "/kbs/v0/resource/{path:path}"
    assert {"POST /kbs/v0/auth", "POST /kbs/v0/attest", f"GET {route}"} <= set(by_name)
    attest = by_name["POST /kbs/v0/attest"]
    appraisal = by_name["attestation.appraise"]
    assert appraisal.parent_span_id == attest.span_id
    assert attributes(appraisal)["cocos.tee"] == "sample"
    asked = [span for span in spans if span.name == "policy.evaluate"]
    assert appraisal.span_id in {span.parent_span_id for span in asked}
    stored = [span for span in spans if span.parent_span_id == attest.span_id]
    assert {"store.get", "store.replace"} <= {span.name for span in stored}
    assert attributes(by_name["store.get"])["db.collection.name"]
    (refused,) = [span for span in spans if span.trace_id.hex() == TRACE and span.kind == 2]
    assert refused.parent_span_id.hex() == PARENT
    assert refused.name == f"GET {route}"
    assert f"trace={TRACE}" in log
    sent = b"".join(received.bodies)
    for hidden in (SECRET, base64.b64encode(SECRET), b"hidden-name", cookie.encode(), b"eyJ"):
        assert hidden not in sent


def test_what_is_not_asked_for_is_not_loaded() -> None:
    code = (
        "import asyncio, sys; import cocos.cli.kbs.command; from cocos.cli.kbs.tracing import tracing\n"
        "async def main():\n async with tracing('kbs') as found: assert found is None\n"
        "asyncio.run(main())\n"
        "print(sorted({'opentelemetry', 'redis', 'grpc', 'alembic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={})
    assert done.stdout == b"[]\n"
