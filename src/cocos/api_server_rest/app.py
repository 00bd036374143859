# SPDX-License-Identifier: Apache-2.0
"""The guest's agents as HTTP: requests to calls and back.

What the hub or the agent cannot do is answered with 500, as in the guest components; the
cause is the problem document's ``title`` (``not-found``, ``denied``, ``unreachable``). A web
page that the machine's own browser shows is no program of this guest: whatever names
another host or comes with an origin is refused.
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from cocos import __version__
from cocos._types import JsonObject
from cocos.api_server_rest.config import Features
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.data_hub import DataHub
from cocos.crypto import base64url
from cocos.errors import (
    AccessDeniedError,
    CocosError,
    FormatError,
    InternalError,
    NotFoundError,
)
from cocos.transport.local_callers import LocalCallers
from cocos.transport.loopback import is_loopback
from cocos.transport.web import WebApp, health, json_response, read_json
from cocos.wire.address import parse_address
from cocos.wire.kbs.protocol import ResourceUri

_MAX_BODY_BYTES: Final = 64 * 2**10
_BASE64: Final = "base64"
_ALL_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ASKED: Final = "cocos.asked"

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class _Event(msgspec.Struct):
    domain: str
    operation: str
    content: str


class Api:
    """The endpoints.

    Args:
        agent: The attestation agent; None switches its endpoints off.
        hub: The confidential data hub; None switches its endpoints off.
        callers: Whom to serve.
    """

    def __init__(
        self, *, agent: AttestationAgent | None, hub: DataHub | None, callers: LocalCallers
    ) -> None:
        self._callers = callers
        self._agent = agent
        self._hub = hub

    def app(self) -> WebApp:
        """Return the application."""
        routes = [
            Route("/healthz", health),
            _route("/info", self._info),
            _route("/aa/token", self._token),
            _route("/aa/evidence", self._evidence),
            _route("/aa/additional-evidence", self._additional_evidence),
            _route("/aa/aael", self._measure, ["POST"]),
            # Programs written for the guest components may use any method.
            _route("/cdh/resource/{path:path}", self._resource, _ALL_METHODS),
            _route("/cdh/{plugin}/{path:path}", self._resource),
        ]
        return WebApp(
            routes,
            max_body_bytes=_MAX_BODY_BYTES,
            admit=self._callers.admit,
            status=_status,
        )

    async def _info(self, request: Request) -> Response:
        feature = Features.ALL
        if self._agent is None or self._hub is None:
            feature = Features.RESOURCE if self._agent is None else Features.ATTESTATION
        found: JsonObject = {"version": __version__, "feature": feature.value}
        if self._agent is not None:
            _asks(request)
            found["tee"] = await self._agent.tee()
            additional = await self._agent.additional_tees()
            if additional:
                found["additional_tees"] = additional
        return json_response(found)

    async def _token(self, request: Request) -> Response:
        bound = _runtime_data(request) if "runtime_data" in request.query_params else b""
        kind, agent = _parameter(request, "token_type"), self._attestation
        _asks(request)
        return _bytes(await agent.get_token(kind, runtime_data=bound))

    async def _evidence(self, request: Request) -> Response:
        bound, agent = _runtime_data(request), self._attestation
        _asks(request)
        return _bytes(await agent.evidence_text(bound))

    async def _additional_evidence(self, request: Request) -> Response:
        bound, agent = _runtime_data(request), self._attestation
        _asks(request)
        text = await agent.additional_evidence(bound)
        return _bytes(text.encode())

    async def _measure(self, request: Request) -> Response:
        agent = self._attestation
        await request.body()
        _asks(request)
        event: _Event = await read_json(request, _Event, "the event")
        result = await agent.extend_runtime_measurement(
            event.domain, event.operation, event.content
        )
        if result == "OK":
            return json_response({"success": "true"})
        problem = {
            "NOT_ENABLED": "the attestation agent keeps no event log",
            "NOT_SUPPORTED": "this platform has no register for events",
        }
        return json_response({"success": "false", "message": problem.get(result, result)})

    async def _resource(self, request: Request) -> Response:
        if self._hub is None:
            raise NotFoundError("resources are not served here", hint="--features resource or all")
        plugin = request.path_params.get("plugin", "resource")
        path = request.path_params["path"]
        query = f"?{request.url.query}" if request.url.query else ""
        uri = ResourceUri.parse(f"kbs+{plugin}:///{path}{query}")
        _asks(request)
        return _bytes(await self._hub.resource(str(uri)))

    @property
    def _attestation(self) -> AttestationAgent:
        if self._agent is None:
            raise NotFoundError(
                "attestation is not served here", hint="--features attestation or all"
            )
        return self._agent


def _route(path: str, endpoint: Endpoint, methods: Sequence[str] = ("GET",)) -> Route:
    @functools.wraps(endpoint)
    async def local(request: Request) -> Response:
        _check_caller(request)
        return await endpoint(request)

    route = Route(path, local, methods=list(methods))
    # Starlette adds HEAD to GET.
    route.methods = set(methods)
    return route


def _asks(request: Request) -> None:
    """Note that the request is in order: from here on a failure is the hub's or agent's."""
    request.scope[_ASKED] = True


def _status(scope: Scope, error: CocosError) -> int:
    return InternalError.http_status if _ASKED in scope else error.http_status


def _check_caller(request: Request) -> None:
    """Refuse whoever is not a program of this machine."""
    peer = request.client.host if request.client else ""
    named = request.headers.get("host", "localhost")
    if not is_loopback(peer) or not is_loopback(_host(named)) or "origin" in request.headers:
        raise AccessDeniedError("only programs of this machine are served, by a loopback name")


def _host(header: str) -> str:
    try:
        return parse_address(header, what="this server", default_port=80).host
    except FormatError:
        return ""


def _parameter(request: Request, name: str) -> str:
    values = request.query_params.getlist(name)
    if len(values) != 1:
        raise FormatError(f"give the parameter {name} once, not {len(values)} times")
    return str(values[0])


def _runtime_data(request: Request) -> bytes:
    text = _parameter(request, "runtime_data")
    encoding = request.query_params.get("encoding")
    if encoding is None:
        return text.encode()
    if encoding != _BASE64:
        raise FormatError(f"the encoding {encoding[:50]!r} is not known", hint=_BASE64)
    return base64url.decode(text, "runtime_data")


def _bytes(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream")
