# SPDX-License-Identifier: Apache-2.0
"""HTTP applications: errors to problem documents, limits, request ids, metrics.

Handlers raise the errors of :mod:`cocos.errors`; the peer sees message, hint and the id of
the request as ``application/problem+json`` (RFC 9457), the log has the cause. The same id
is in the ``X-Request-Id`` header and bound into every log line of the request, as is the
id of the trace if the client names one (W3C Trace Context).
"""

import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Message, Receive, Scope, Send

from cocos._apart import apart
from cocos.errors import (
    AuthenticationError,
    CallerError,
    CocosError,
    FormatError,
    InternalError,
    NotFoundError,
    TooManyRequestsError,
)
from cocos.host.disk import translated
from cocos.transport.bodies import Bodies, Call
from cocos.transport.openapi import PROBLEM, TEXT, Content, operation
from cocos.transport.trace_context import trace_of
from cocos.wire import json
from cocos.wire.kbs.protocol import Problem

MAX_BODY_BYTES: Final = 2 * 2**20
BODY_SECONDS: Final = 30.0
REQUEST_ID_HEADER: Final = "X-Request-Id"
_REQUEST_ID = "cocos.request_id"
_LOGGED: Final = 1000  # characters of a stranger's text
_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that ended in an error, and the id that the peer is told."""

    id: str
    method: str
    path: str
    error: CocosError
    scope: Scope


ErrorHook: TypeAlias = Callable[[Failed], Awaitable[None]]
"""Called before the peer is answered."""

Describe: TypeAlias = Callable[[Failed], tuple[str, str]]
"""Returns ``type`` and ``detail`` of the problem document."""


def request_id(scope: Scope) -> str:
    """Return the id of a request, 16 lower-case hex digits."""
    found: str = scope[_REQUEST_ID]
    return found


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return ``value`` as compact JSON."""
    return Response(
        json.encode(value), status_code=status, headers=headers, media_type="application/json"
    )


async def read_json(request: Request, shape: type[T] | Any, what: str) -> T:
    """Decode the request's body into ``shape``, whatever its Content-Type says.

    Raises:
        FormatError: not JSON of that shape, or beyond the limits for a stranger's JSON.
        TooLargeError: more bytes than the server takes.
    """
    body = await request.body()
    decoded: T = await apart(len(body), json.decode_strict, body, shape, what)
    return decoded


def health(_request: Request) -> Response:
    """Answer that the server is alive."""
    return Response(status_code=200)


class HttpMetrics:
    """Counts requests by method, route template and status; never by path.

    Attributes:
        registry: Where the service adds its own metrics.
    """

    def __init__(self, prefix: str, *, only_below: str = "/") -> None:
        """Make the metrics.

        Args:
            prefix: First word of every name, such as ``kbs``.
            only_below: Requests whose path does not start with it are not counted.
        """
        self.registry = CollectorRegistry()
        self._only_below = only_below
        labels = ("method", "route", "status")
        sizes = (32, 128, 512, 2048, 8192)
        self._requests = Counter(
            f"{prefix}_http_requests", "HTTP requests", labels, registry=self.registry
        )
        self._seconds = Histogram(
            f"{prefix}_http_request_duration_seconds",
            "Time to answer",
            buckets=(0.0005, 0.001, 0.005, 0.01, 0.05, 0.5, 1),
            registry=self.registry,
        )
        self._received = Histogram(
            f"{prefix}_http_request_size_bytes",
            "Size of request bodies",
            buckets=sizes,
            registry=self.registry,
        )
        self._sent = Histogram(
            f"{prefix}_http_response_size_bytes",
            "Size of response bodies",
            buckets=sizes,
            registry=self.registry,
        )
        self._active = Gauge(
            f"{prefix}_http_active_connections", "Requests being answered", registry=self.registry
        )

    def counts(self, scope: Scope) -> bool:
        """Whether this request is to be counted."""
        return bool(scope["path"].startswith(self._only_below))

    def started(self) -> None:
        """Note that a request has come."""
        self._active.inc()

    def ended(self, scope: Scope, call: Call) -> None:
        """Note that a request has been answered."""
        route = scope.get("route")
        template = route.path if isinstance(route, Route) else "none"
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
        self._active.dec()
        self._requests.labels(method, template, str(call.status)).inc()
        self._seconds.observe(time.perf_counter() - call.began)
        self._received.observe(call.received)
        self._sent.observe(call.sent)

    @operation("Metrics for Prometheus", answer=Content(media_type=TEXT))
    async def endpoint(self, _request: Request) -> Response:
        """Serve all metrics of the registry as Prometheus text."""
        return Response(
            generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


class WebApp:
    """An ASGI application: Starlette's router behind the one edge for errors and limits."""

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        metrics: HttpMetrics | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
        describe: Describe = lambda failed: ("about:blank", failed.error.message),
        on_error: ErrorHook | None = None,
        admit: Callable[[Scope], None] | None = None,
        status: Callable[[Scope, CocosError], int] = lambda _, error: error.http_status,
    ) -> None:
        """Make the application.

        Args:
            routes: What it serves.
            metrics: Where requests are counted.
            max_body_bytes: Largest request body; a larger one is answered with 413.
            body_seconds: How long a body may take to arrive.
            describe: Words problem documents.
            on_error: Told of every error.
            admit: Raises if a request is to be refused, before anything is done for it.
            status: With which one an error of ours is answered.
        """
        self._admit = admit
        self._status = status
        self.routes = tuple(routes)
        self._router = Router(routes, redirect_slashes=False)
        self._metrics = metrics
        self._bodies = Bodies(max_body_bytes, seconds=body_seconds)
        self._describe = describe
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise InternalError(f"no {scope['type']} here")
        made = secrets.token_hex(8)
        call = Call(time.perf_counter())
        # With "app" in the scope the router raises instead of answering in plain text.
        scope = {**scope, "app": self, _REQUEST_ID: made}
        counted = self._metrics if self._metrics and self._metrics.counts(scope) else None
        with structlog.contextvars.bound_contextvars(request=made, **trace_of(scope)):
            if counted:
                counted.started()
            try:
                await self._answer(scope, receive, send, call)
            finally:
                if counted:
                    counted.ended(scope, call)
            _log.debug(
                "http.answered", method=scope["method"], path=scope["path"], status=call.status
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        async def observed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = scope[_REQUEST_ID]
            elif message["type"] == "http.response.body":
                call.sent += len(message.get("body", b""))
            await send(message)

        try:
            if self._admit is not None:
                self._admit(scope)
            self._bodies.check_declared(Headers(scope=scope).get("content-length", "0"))
            if not scope["path"].isprintable():
                # The router would drop a newline at the end.
                raise FormatError("the path has characters that cannot be shown")  # noqa: TRY301
            await self._router(scope, self._bodies.limited(receive, call), observed_send)
        except Exception as error:
            if call.status:
                raise  # too late to answer; the server ends the connection
            response = await self._problem(scope, error)
            await self._bodies.drain(receive, call)
            await response(scope, receive, observed_send)
        finally:
            self._bodies.release(call)

    async def _problem(self, scope: Scope, error: Exception) -> Response:
        known, status, headers = self._known(scope, error)
        failed = Failed(request_id(scope), scope["method"], scope["path"], known, scope)
        _log_error(failed, status, error)
        if self._on_error is not None:
            try:
                await self._on_error(failed)
            except CocosError as failure:
                cause = repr(failure.__cause__)
                _log.warning("http.error-not-recorded", error=failure.message, cause=cause)
        kind, detail = self._describe(failed)
        return problem_response(
            Problem(
                type=kind,
                detail=detail,
                title=known.code,
                hint=known.hint or "",
                id=failed.id,
            ),
            status=status,
            headers=headers,
        )

    def _known(
        self, scope: Scope, error: Exception
    ) -> tuple[CocosError, int, Mapping[str, str] | None]:
        if not isinstance(error, CocosError) or isinstance(error, TooManyRequestsError):
            return _known(scope, error)
        status = self._status(scope, error)
        # RFC 9110 §11.6.1: a 401 says how to prove oneself.
        proof = status == AuthenticationError.http_status
        return error, status, {"WWW-Authenticate": "Bearer"} if proof else None


def problem_response(
    problem: Problem, *, status: int, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a problem document."""
    return Response(
        json.encode(problem),
        status_code=status,
        headers=headers,
        media_type=PROBLEM,
    )


def _known(scope: Scope, error: Exception) -> tuple[CocosError, int, Mapping[str, str] | None]:
    known: CocosError
    if isinstance(error, TooManyRequestsError):
        return error, error.http_status, {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, ClientDisconnect):
        known = FormatError("the request ended before its body was complete")
        return known, known.http_status, None
    if (ours := translated(error)) is not None:
        return ours, ours.http_status, None
    if not isinstance(error, HTTPException):
        return InternalError("internal error; the server's log has the cause"), 500, None
    path = scope["path"]
    if error.status_code == NotFoundError.http_status:
        known = NotFoundError(f"there is nothing at {path}")
    elif allowed := (error.headers or {}).get("Allow"):
        known = CallerError(f"{scope['method']} is not possible at {path}", hint=f"use {allowed}")
    else:
        known = CallerError(error.detail)
    return known, error.status_code, error.headers


def _log_error(failed: Failed, status: int, error: Exception) -> None:
    known = failed.error
    findings = [
        f"{finding.check}: {finding.problem} (actual {finding.actual!r}, "
        f"expected {finding.expected!r})"
        for finding in known.findings
    ]
    crashed = isinstance(known, InternalError)
    ours = status >= InternalError.http_status
    write = _log.error if ours else _log.info
    more: dict[str, Any] = {"exc_info": error} if crashed else {}
    if findings:
        more["findings"] = findings
    if error.__cause__ is not None and not crashed:
        more["cause"] = repr(error.__cause__)
    write(
        "http.failed",
        method=failed.method,
        path=failed.path[:_LOGGED],
        status=status,
        code=known.code,
        error=known.message[:_LOGGED],
        **more,
    )
