# SPDX-License-Identifier: Apache-2.0
"""The administrators' routes of the key broker, below ``/kbs/v0``."""

from collections.abc import Awaitable, Callable

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos._types import JsonObject
from cocos.crypto import base64url
from cocos.errors import FormatError
from cocos.kbs.admin import AdminGate, AdminRequest
from cocos.kbs.administration import Administration
from cocos.kbs.resource_policy import POLICY_ID
from cocos.transport.web import json_response, read_json
from cocos.wire import kbs

_log = structlog.get_logger(__name__)


class _PolicyBody(msgspec.Struct, frozen=True):
    """Body of ``resource-policy``; Rego as base64url without padding."""

    policy: str


class _AttestationPolicyBody(_PolicyBody, frozen=True):
    """Body of ``attestation-policy``."""

    policy_id: str


def admin_routes(administration: Administration, admins: AdminGate, *, prefix: str) -> list[Route]:
    """Return what administrators, whom ``admins`` admits, can reach below ``prefix``."""
    api = _Api(administration, admins)

    def route(path: str, handler: Callable[[Request], Awaitable[Response]], method: str) -> Route:
        return Route(f"{prefix}/{path}", handler, methods=[method])

    return [
        route("resource/{path:path}", api.set_resource, "POST"),
        route("resource/{path:path}", api.delete_resource, "DELETE"),
        route("resource-policy", api.set_resource_policy, "POST"),
        route("resource-policy", api.list_resource_policies, "GET"),
        route("attestation-policy", api.set_attestation_policy, "POST"),
        route("reference-value", api.register_reference_values, "POST"),
        route("reference-value/{name:path}", api.get_reference_value, "GET"),
        route("denial/{id}", api.explain, "GET"),
    ]


class _Api:
    """Request → use case → response, and nothing else."""

    def __init__(self, administration: Administration, admins: AdminGate) -> None:
        self._administration = administration
        self._admins = admins

    async def set_resource(self, request: Request) -> Response:
        admin = await self._admit(request)
        path = kbs.ResourcePath.parse(request.path_params["path"])
        # RFC 9110 §13.1.2: "*" asks that nothing is overwritten.
        overwrite = request.headers.get("If-None-Match") != "*"
        await self._administration.set_resource(path, await request.body(), overwrite=overwrite)
        _log.info("kbs.resource-set", admin=admin, resource=str(path))
        return Response()

    async def delete_resource(self, request: Request) -> Response:
        admin = await self._admit(request)
        path = kbs.ResourcePath.parse(request.path_params["path"])
        await self._administration.delete_resource(path)
        _log.info("kbs.resource-deleted", admin=admin, resource=str(path))
        return Response()

    async def set_resource_policy(self, request: Request) -> Response:
        admin = await self._admit(request)
        body: _PolicyBody = await read_json(request, _PolicyBody, "the resource policy request")
        await self._administration.set_resource_policy(_policy_text(body))
        _log.info("kbs.resource-policy-set", admin=admin)
        return Response()

    async def list_resource_policies(self, request: Request) -> Response:
        await self._admit(request)
        return json_response([POLICY_ID])

    async def set_attestation_policy(self, request: Request) -> Response:
        admin = await self._admit(request)
        body: _AttestationPolicyBody = await read_json(
            request, _AttestationPolicyBody, "the attestation policy request"
        )
        await self._administration.set_attestation_policy(body.policy_id, _policy_text(body))
        _log.info("kbs.attestation-policy-set", admin=admin, policy=body.policy_id)
        return Response()

    async def register_reference_values(self, request: Request) -> Response:
        admin = await self._admit(request)
        message: JsonObject = await read_json(request, JsonObject, "the reference value message")
        await self._administration.register_reference_values(message)
        _log.info("kbs.reference-values-registered", admin=admin)
        return Response(media_type="application/json")

    async def get_reference_value(self, request: Request) -> Response:
        await self._admit(request)
        return json_response(
            await self._administration.get_reference_value(request.path_params["name"])
        )

    async def explain(self, request: Request) -> Response:
        await self._admit(request)
        return json_response(await self._administration.explain(request.path_params["id"]))

    async def _admit(self, request: Request) -> str:
        return await self._admins.admit(
            AdminRequest(request.headers.get("authorization"), request.scope["path"])
        )


def _policy_text(body: _PolicyBody) -> str:
    try:
        return base64url.decode(body.policy, "the policy").decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("the policy is not UTF-8") from error
