# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry traces over OTLP/HTTP, for a server that was told where to send them.

Only a program that traces imports this module. What is traced is wrapped when the program
is put together: without traces nothing of this is on the way of a request. Spans carry
names of routes, TEEs, namespaces and errors; never keys, values, tokens or messages.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send

from cocos.transport.web import WebApp

_SERVER_ERROR: Final = 500
_PARENT: Final = ("traceparent", "tracestate")

T = TypeVar("T")


class Tracing:
    """Makes spans, and wraps what they are of."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def calls(self, inner: T, names: dict[str, str], *, first: str | None = None) -> T:
        """Return ``inner``, with a span around calls of some of its coroutine functions.

        Args:
            inner: What is called.
            names: Method → name of the span.
            first: Attribute that tells the first argument, where that is a name of ours.
        """
        traced: Any = _Traced(inner)
        for method, name in names.items():
            call = getattr(inner, method)
            setattr(traced, method, self._around(call, name, first))
        result: T = traced
        return result

    def _around(
        self, call: Callable[..., Awaitable[Any]], name: str, first: str | None
    ) -> Callable[..., Awaitable[Any]]:
        async def traced(*arguments: Any, **named: Any) -> Any:
            with self._span(name) as span:
                if first is not None:
                    span.set_attribute(first, str(arguments[0]))
                return await call(*arguments, **named)

        return traced

    @contextlib.contextmanager
    def _span(self, name: str, **more: Any) -> Iterator[Span]:
        # What an exception says may come from anywhere: spans get its kind only.
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **more
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise

    def app(self, inner: WebApp) -> "TracedApp":
        """Return an application whose requests are spans."""
        return TracedApp(inner, self)

    @contextlib.contextmanager
    def request(self, scope: Scope, route: str) -> Iterator[Span]:
        """Have a span of a request; a child of the client's, if it named one."""
        headers = Headers(scope=scope)
        carrier = {name: headers[name] for name in _PARENT if name in headers}
        parent = TraceContextTextMapPropagator().extract(carrier)
        method = scope["method"] if route else "other"
        name = f"{method} {route}".rstrip()
        with self._span(name, context=parent, kind=SpanKind.SERVER) as span:
            span.set_attribute("http.request.method", method)
            if route:
                span.set_attribute("http.route", route)
            yield span


class _Traced:
    """Something whose methods are partly replaced."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TracedApp:
    """An ASGI application around another one."""

    def __init__(self, inner: WebApp, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._tracing.request(scope, _template(self._inner.routes, scope)) as span:

            async def observed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= _SERVER_ERROR:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            trace = format_trace_id(span.get_span_context().trace_id)
            with structlog.contextvars.bound_contextvars(trace=trace):
                await self._inner(scope, receive, observed)


def _template(routes: Sequence[object], scope: Scope) -> str:
    """Return the template of a request's route: paths have names of secrets."""
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is Match.FULL:
            return route.path
    return ""


@contextlib.asynccontextmanager
async def tracing(service: str) -> AsyncIterator[Tracing]:
    """Send spans to where the environment's OTEL_* variables say, while the block runs.

    Args:
        service: Name of the program, unless OTEL_SERVICE_NAME gives another.
    """
    resource = Resource({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield Tracing(provider.get_tracer("cocos"))
    finally:
        provider.shutdown()
