# SPDX-License-Identifier: Apache-2.0
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    Finding,
    InternalError,
    TooManyRequestsError,
)
from cocos.transport.bodies import SMALL_BYTES, Bodies, Call
from cocos.transport.web import (
    Failed,
    HttpMetrics,
    WebApp,
    health,
    json_response,
    read_json,
)

LIMIT = 1000


async def echo(request: Request) -> Response:
    return json_response(len(await request.body()))


async def numbers(request: Request) -> Response:
    values: list[int] = await read_json(request, list[int], "the list")
    return json_response(sum(values))


async def crash(_request: Request) -> Response:
    raise RuntimeError("password=hunter2")


async def deny(_request: Request) -> Response:
    raise AccessDeniedError("no", findings=(Finding("a.b", "is wrong", "1", "2"),), hint="ask")


async def ignore(_request: Request) -> Response:
    raise AuthenticationError("who are you?")


class Recorder:
    def __init__(self) -> None:
        self.failed: list[Failed] = []

    async def __call__(self, failed: Failed) -> None:
        self.failed.append(failed)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def metrics() -> HttpMetrics:
    return HttpMetrics("test", only_below="/api")


def make(metrics: HttpMetrics, recorder: Recorder, *, body_seconds: float = 60) -> WebApp:
    return WebApp(
        [
            Route("/api/echo", echo, methods=["POST"]),
            Route("/api/numbers", numbers, methods=["POST"]),
            Route("/api/crash", crash),
            Route("/api/deny/{secret}", deny),
            Route("/api/ignore", ignore, methods=["POST"]),
            Route("/healthz", health),
            Route("/metrics", metrics.endpoint),
        ],
        metrics=metrics,
        max_body_bytes=LIMIT,
        body_seconds=body_seconds,
        describe=lambda failed: (f"urn:test:{failed.error.code}", failed.error.message),
        on_error=recorder,
    )


@pytest.fixture
async def client(metrics: HttpMetrics, recorder: Recorder) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make(metrics, recorder))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 100


async def test_health(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_401_says_how_to_prove_oneself(client: httpx.AsyncClient) -> None:
    unknown = await client.post("/api/ignore")
    assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Bearer")
    denied = await client.get("/api/deny/x")
    assert (denied.status_code, "www-authenticate" in denied.headers) == (403, False)


@pytest.mark.parametrize("size", [0, LIMIT])
async def test_a_body_within_the_limit_passes(client: httpx.AsyncClient, size: int) -> None:
    assert (await client.post("/api/echo", content=b"x" * size)).json() == size


async def test_a_larger_body_is_413(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/echo", content=b"x" * (LIMIT + 1))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "1000 bytes" in answer.json()["detail"]


async def test_a_larger_chunked_body_is_413(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/echo", content=chunks(10))).json() == LIMIT
    assert (await client.post("/api/echo", content=chunks(11))).status_code == 413


async def test_a_declared_length_is_refused_before_a_byte_is_read() -> None:
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        sent.append(message)

    app = WebApp([Route("/", echo, methods=["POST"])], max_body_bytes=LIMIT)
    headers = [(b"content-length", b"99999999")]
    await app(
        {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": headers,
            "query_string": b"",
            "root_path": "",
        },
        receive,
        send,
    )
    assert sent[0]["status"] == 413  # type: ignore[index]  # an ASGI message is a dict


async def test_a_body_that_never_comes_is_refused(metrics: HttpMetrics, recorder: Recorder) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    transport = httpx.ASGITransport(make(metrics, recorder, body_seconds=0.01))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/api/echo", content=stalling())
    assert answer.status_code == 400
    assert "did not arrive" in answer.json()["detail"]


async def test_a_body_that_ends_early_is_the_client_s_fault(
    metrics: HttpMetrics, recorder: Recorder
) -> None:
    # What Granian says of a client that has gone, and of chunks that are none.
    parts: list[dict[str, object]] = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive() -> dict[str, object]:
        return parts.pop(0)

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/echo", "headers": []}
    with structlog.testing.capture_logs() as lines:
        await make(metrics, recorder)(
            {**scope, "query_string": b"", "root_path": ""}, receive, send
        )
    assert sent[0]["status"] == 400  # type: ignore[index]  # an ASGI message is a dict
    assert [line["log_level"] for line in lines if line["event"] == "http.failed"] == ["info"]
    assert "exc_info" not in lines[0]


async def test_bodies_together_cost_bounded_memory() -> None:
    """Large requests that never end leave room for small ones."""
    bodies = Bodies(2 * SMALL_BYTES, seconds=60, max_held=2 * SMALL_BYTES)
    large, small = bytes(2 * SMALL_BYTES - 1), bytes(SMALL_BYTES)

    async def take(body: bytes) -> Call:
        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": True}

        call = Call(0.0)
        try:
            await bodies.limited(receive, call)()
        except TooManyRequestsError:
            bodies.release(call)
            raise
        return call

    first, _ = await take(large), await take(large)
    for _ in range(3):
        with pytest.raises(TooManyRequestsError):
            await take(large)
    for _ in range(100):
        await take(small)
    bodies.release(first)
    await take(large)


async def test_every_body_gives_its_memory_back() -> None:
    app = WebApp([Route("/", echo, methods=["POST"])], max_body_bytes=2 * SMALL_BYTES)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for size in (SMALL_BYTES, 2 * SMALL_BYTES - 100, 2 * SMALL_BYTES + 100):
            answer = await client.post("/", content=chunks(size // 100))
            assert answer.status_code == (413 if size > 2 * SMALL_BYTES else 200)
    assert app._bodies._held == 0


@pytest.mark.parametrize(
    "body",
    [b'[1,{"a":1,"a":2}]', b"[" + b"[" * 64 + b"]" * 64 + b"]", b"[" + b"1," * 10**5 + b"1]"],
)
async def test_json_beyond_the_limits_is_400(body: bytes) -> None:
    async def anything(request: Request) -> Response:
        return json_response(await read_json(request, list[Any], "the list"))

    app = WebApp([Route("/", anything, methods=["POST"])])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/", content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("the list is malformed: ")


async def test_who_must_wait_is_told_how_long() -> None:
    async def busy(_request: Request) -> Response:
        raise TooManyRequestsError("slow down", retry_after=1.2)

    transport = httpx.ASGITransport(WebApp([Route("/", busy)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")


@pytest.mark.parametrize("body", [b"", b"{", b"[1,]", b'["a"]', b"\xff", b"[" * 900])
async def test_malformed_json_is_400(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/api/numbers", content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("the list is malformed")


async def test_an_error_is_a_problem_with_the_request_s_id(
    client: httpx.AsyncClient, recorder: Recorder
) -> None:
    answer = await client.get("/api/deny/x")
    assert answer.status_code == 403
    (failed,) = recorder.failed
    assert answer.json() == {
        "type": "urn:test:denied",
        "detail": "no",
        "title": "denied",
        "hint": "ask",
        "id": failed.id,
    }
    assert answer.headers["x-request-id"] == failed.id
    assert (failed.method, failed.path) == ("GET", "/api/deny/x")


async def test_the_operator_s_log_has_the_findings(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        answer = await client.get("/api/deny/x")
    (line,) = [line for line in lines if line["event"] == "http.failed"]
    assert line["request"] == answer.json()["id"]
    assert line["findings"] == ["a.b: is wrong (actual '1', expected '2')"]


async def test_a_crash_tells_the_peer_nothing(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await client.get("/api/crash")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert isinstance(lines[0]["exc_info"], RuntimeError)


async def test_a_hook_that_fails_does_not_hide_the_error(metrics: HttpMetrics) -> None:
    async def hook(_failed: Failed) -> None:
        raise InternalError("disk full")

    app = WebApp([Route("/", deny)], on_error=hook)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/")
    assert answer.status_code == 403
    assert answer.json()["type"] == "about:blank"


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nowhere")).status_code == 404
    answer = await client.get("/api/echo")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_metrics_name_templates_never_paths(
    client: httpx.AsyncClient, recorder: Recorder
) -> None:
    await client.get("/api/deny/topsecret")
    await client.get("/api/nowhere/topsecret")
    await client.request("TOPSECRET", "/api/echo")
    await client.get("/healthz")
    text = (await client.get("/metrics")).text
    assert "topsecret" not in text.lower()
    samples = {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "test_http_requests_total"
    }
    assert samples == {
        (("method", "GET"), ("route", "/api/deny/{secret}"), ("status", "403")): 1,
        (("method", "GET"), ("route", "none"), ("status", "404")): 1,
        (("method", "other"), ("route", "/api/echo"), ("status", "405")): 1,
    }
    assert "test_http_active_connections 0.0" in text
