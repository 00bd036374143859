# SPDX-License-Identifier: Apache-2.0
"""The administrators' routes of the key broker, below ``/kbs/v0``."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos._types import JsonObject
from cocos.crypto import base64url
from cocos.errors import FormatError, StateError
from cocos.kbs.admin.conditions import IF_MATCH, IF_NONE_MATCH, Condition, condition
from cocos.kbs.admin.service import Administration
from cocos.kbs.audit import Auditor
from cocos.kbs.charges import AdminDoor
from cocos.kbs.denials import Denial
from cocos.kbs.openapi import ADMIN
from cocos.kbs.resource_policy import POLICY_ID
from cocos.kbs.routes import SlashedRoute
from cocos.transport.openapi import BYTES, TEXT, Content, json_of, operation
from cocos.transport.web import json_response, read_json
from cocos.wire.kbs import protocol as kbs
from cocos.wire.reference_values import parse_time

_log = structlog.get_logger(__name__)

_REGO: Final = Content(media_type=TEXT)
_STORED: Final = json_of(kbs.PolicyStored)
_PREFIX: Final = {"prefix": "Only names that begin so"}
_READING: Final = frozenset({"GET", "HEAD"})
_ONE_OF: Final = (IF_MATCH, IF_NONE_MATCH)
_NEW: Final = {IF_NONE_MATCH: "* does not overwrite"}


class PolicyBody(msgspec.Struct, frozen=True):
    """Body of ``resource-policy``; Rego as base64url without padding."""

    policy: str


class AttestationPolicyBody(PolicyBody, frozen=True):
    """Body of ``attestation-policy``."""

    policy_id: str


def admin_routes(
    administration: Administration, admins: AdminDoor, auditor: Auditor, *, prefix: str
) -> list[Route]:
    """Return what administrators, whom ``admins`` admits, can reach below ``prefix``."""
    api = _Api(administration, admins, auditor)

    def route(path: str, handler: Callable[[Request], Awaitable[Response]], method: str) -> Route:
        return SlashedRoute(f"{prefix}/{path}", handler, methods=[method])

    return [
        route("resource", api.list_resources, "GET"),
        route("resource/{path:path}", api.set_resource, "POST"),
        route("resource/{path:path}", api.delete_resource, "DELETE"),
        route("unbound-key", api.list_unbound_keys, "GET"),
        route("resource-policy", api.set_resource_policy, "POST"),
        route("resource-policy", api.list_resource_policies, "GET"),
        route("resource-policy/{id:path}", api.get_resource_policy, "GET"),
        route("resource-policy/{id:path}", api.put_resource_policy, "PUT"),
        route("resource-policy/{id:path}", api.delete_resource_policy, "DELETE"),
        route("attestation-policy", api.set_attestation_policy, "POST"),
        route("attestation-policy", api.list_attestation_policies, "GET"),
        route("attestation-policy/{id}", api.get_attestation_policy, "GET"),
        route("attestation-policy/{id}", api.put_attestation_policy, "PUT"),
        route("attestation-policy/{id}", api.delete_attestation_policy, "DELETE"),
        route("reference-value", api.register_reference_values, "POST"),
        route("reference-value", api.list_reference_values, "GET"),
        route("reference-value/{name:path}", api.get_reference_value, "GET"),
        route("reference-value/{name:path}", api.put_reference_value, "PUT"),
        route("reference-value/{name:path}", api.delete_reference_value, "DELETE"),
        route("denial/{id}", api.explain, "GET"),
    ]


class _Api:
    """Request → use case → response, and nothing else."""

    def __init__(self, administration: Administration, admins: AdminDoor, auditor: Auditor) -> None:
        self._administration = administration
        self._admins = admins
        self._auditor = auditor

    @operation(
        "Store a resource",
        body=Content(media_type=BYTES),
        errors=[StateError],
        headers=_NEW,
        security=ADMIN,
    )
    async def set_resource(self, request: Request) -> Response:
        admin, only = await self._admit(request, IF_NONE_MATCH)
        path = kbs.ResourcePath.parse(request.path_params["path"])
        data = await request.body()
        await self._administration.set_resource(path, data, overwrite=not only.new)
        _log.info("kbs.resource-set", admin=admin, resource=str(path))
        return Response()

    @operation("Delete a resource", security=ADMIN)
    async def delete_resource(self, request: Request) -> Response:
        admin, _ = await self._admit(request)
        path = kbs.ResourcePath.parse(request.path_params["path"])
        await self._administration.delete_resource(path)
        _log.info("kbs.resource-deleted", admin=admin, resource=str(path))
        return Response()

    @operation("Names of resources", answer=json_of(list[str]), query=_PREFIX, security=ADMIN)
    async def list_resources(self, request: Request) -> Response:
        await self._admit(request)
        prefix = request.query_params.get("prefix", "")
        return json_response(await self._administration.list_resources(prefix))

    @operation(
        "Names of images' keys that only a global policy guards which lets every computation",
        answer=json_of(list[str]),
        security=ADMIN,
    )
    async def list_unbound_keys(self, request: Request) -> Response:
        await self._admit(request)
        return json_response(await self._administration.unbound_keys())

    @operation(
        "Set the global resource policy",
        body=json_of(PolicyBody),
        answer=_STORED,
        security=ADMIN,
    )
    async def set_resource_policy(self, request: Request) -> Response:
        admin, only = await self._enter(request, IF_NONE_MATCH)
        body: PolicyBody = await read_json(request, PolicyBody, "the resource policy request")
        text = _policy_text(body)
        return await self._store_resource_policy(request, admin, POLICY_ID, text, only)

    @operation(
        "Set a resource policy",
        body=_REGO,
        answer=_STORED,
        errors=[StateError],
        headers=_NEW,
        security=ADMIN,
    )
    async def put_resource_policy(self, request: Request) -> Response:
        admin, only = await self._enter(request, IF_NONE_MATCH)
        policy_id, text = request.path_params["id"], await _text(request)
        return await self._store_resource_policy(request, admin, policy_id, text, only)

    async def _store_resource_policy(
        self, request: Request, admin: str, policy_id: str, text: str, only: Condition
    ) -> Response:
        await self._note_policy(request, policy_id, text)
        warnings = await self._administration.set_resource_policy(
            text, policy_id, overwrite=not only.new
        )
        _log.info("kbs.resource-policy-set", admin=admin, policy=policy_id)
        return json_response(kbs.PolicyStored(warnings))

    @operation("Ids of resource policies", answer=json_of(list[str]), security=ADMIN)
    async def list_resource_policies(self, request: Request) -> Response:
        await self._admit(request)
        return json_response(await self._administration.resource_policy_ids())

    @operation("Text of a resource policy", answer=_REGO, security=ADMIN)
    async def get_resource_policy(self, request: Request) -> Response:
        await self._admit(request)
        return _rego(await self._administration.resource_policy(request.path_params["id"]))

    @operation("Delete a resource policy", answer=_STORED, security=ADMIN)
    async def delete_resource_policy(self, request: Request) -> Response:
        admin, _ = await self._admit(request)
        policy_id = request.path_params["id"]
        warnings = await self._administration.delete_resource_policy(policy_id)
        _log.info("kbs.resource-policy-deleted", admin=admin, policy=policy_id)
        return json_response(kbs.PolicyStored(warnings))

    @operation(
        "Set an attestation policy",
        body=json_of(AttestationPolicyBody),
        answer=_STORED,
        security=ADMIN,
    )
    async def set_attestation_policy(self, request: Request) -> Response:
        admin, _ = await self._enter(request)
        body: AttestationPolicyBody = await read_json(
            request, AttestationPolicyBody, "the attestation policy request"
        )
        text = _policy_text(body)
        return await self._store_attestation_policy(request, admin, body.policy_id, text)

    @operation("Set an attestation policy", body=_REGO, answer=_STORED, security=ADMIN)
    async def put_attestation_policy(self, request: Request) -> Response:
        admin, _ = await self._enter(request)
        policy_id = request.path_params["id"]
        text = await _text(request)
        return await self._store_attestation_policy(request, admin, policy_id, text)

    async def _store_attestation_policy(
        self, request: Request, admin: str, policy_id: str, text: str
    ) -> Response:
        await self._note_policy(request, policy_id, text)
        warnings = await self._administration.set_attestation_policy(policy_id, text)
        _log.info("kbs.attestation-policy-set", admin=admin, policy=policy_id)
        return json_response(kbs.PolicyStored(warnings))

    @operation("Ids of attestation policies", answer=json_of(list[str]), security=ADMIN)
    async def list_attestation_policies(self, request: Request) -> Response:
        await self._admit(request)
        return json_response(await self._administration.attestation_policy_ids())

    @operation("Text of an attestation policy", answer=_REGO, security=ADMIN)
    async def get_attestation_policy(self, request: Request) -> Response:
        await self._admit(request)
        return _rego(await self._administration.attestation_policy(request.path_params["id"]))

    @operation("Delete an attestation policy", security=ADMIN)
    async def delete_attestation_policy(self, request: Request) -> Response:
        admin, _ = await self._admit(request)
        policy_id = request.path_params["id"]
        await self._administration.delete_attestation_policy(policy_id)
        _log.info("kbs.attestation-policy-deleted", admin=admin, policy=policy_id)
        return Response()

    @operation("Register reference values", body=json_of(JsonObject), security=ADMIN)
    async def register_reference_values(self, request: Request) -> Response:
        admin, _ = await self._admit(request)
        message: JsonObject = await read_json(request, JsonObject, "the reference value message")
        await self._administration.register_reference_values(message)
        _log.info("kbs.reference-values-registered", admin=admin)
        return Response(media_type="application/json")

    @operation("Every reference value", answer=json_of(list[JsonObject]), security=ADMIN)
    async def list_reference_values(self, request: Request) -> Response:
        await self._admit(request)
        return json_response(await self._administration.list_reference_values())

    @operation("A reference value", answer=json_of(Any), security=ADMIN)
    async def get_reference_value(self, request: Request) -> Response:
        await self._admit(request)
        name = request.path_params["name"]
        value, tag = await self._administration.find_reference_value(name)
        return json_response(value, headers={} if tag is None else {"ETag": f'"{tag}"'})

    @operation(
        "Set a reference value",
        body=json_of(Any),
        errors=[StateError],
        query={"expiration": "When it expires, RFC 3339; in a year without"},
        headers={**_NEW, IF_MATCH: "The ETag of what is overwritten"},
        security=ADMIN,
    )
    async def put_reference_value(self, request: Request) -> Response:
        admin, only = await self._admit(request, *_ONE_OF)
        name = request.path_params["name"]
        value: Any = await read_json(request, Any, "the reference value")
        end = request.query_params.get("expiration")
        expires = None if end is None else parse_time(end, "the reference value")
        await self._administration.set_reference_value(
            name, value, expires=expires, new=only.new, tag=only.tag
        )
        _log.info("kbs.reference-value-set", admin=admin, name=name)
        return Response()

    @operation("Delete a reference value", security=ADMIN)
    async def delete_reference_value(self, request: Request) -> Response:
        admin, _ = await self._admit(request)
        name = request.path_params["name"]
        await self._administration.delete_reference_value(name)
        _log.info("kbs.reference-value-deleted", admin=admin, name=name)
        return Response()

    @operation("Why something was denied", answer=json_of(Denial), security=ADMIN)
    async def explain(self, request: Request) -> Response:
        await self._admit(request)
        return json_response(await self._administration.explain(request.path_params["id"]))

    async def _admit(self, request: Request, *conditions: str) -> tuple[str, Condition]:
        """Admit, and note the change; return the administrator and on what condition it is."""
        entered = await self._enter(request, *conditions)
        if request.method not in _READING:
            # A change that nobody can learn of must not be made. A resource is not noted:
            # the digest of a short secret gives it away.
            await self._auditor.administered(self._auditor.trail(request.scope))
        return entered

    async def _enter(self, request: Request, *conditions: str) -> tuple[str, Condition]:
        """Admit, for the one who is to note the change; it may have these conditions."""
        admin = await self._admins.admit(request)
        if request.method in _READING:
            return admin, Condition()
        self._auditor.trail(request.scope).admin = admin
        return admin, condition(request.headers, conditions)

    async def _note_policy(self, request: Request, policy_id: str, text: str) -> None:
        trail = self._auditor.trail(request.scope)
        trail.saw_policy(policy_id, text)
        await self._auditor.administered(trail)


def _policy_text(body: PolicyBody) -> str:
    return _decoded(base64url.decode(body.policy, "the policy"))


async def _text(request: Request) -> str:
    return _decoded(await request.body())


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("the policy is not UTF-8") from error


def _rego(text: str) -> Response:
    return Response(text, media_type="text/plain")
