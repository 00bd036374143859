# SPDX-License-Identifier: Apache-2.0
"""The key broker's HTTP interface, as in Trustee's KBS protocol, below ``/kbs/v0``."""

import datetime as dt
import re
from collections.abc import Awaitable, Callable, Sequence
from email.utils import format_datetime
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    CocosError,
    EvidenceError,
    FormatError,
    TooManyRequestsError,
)
from cocos.kbs.admin.app import admin_routes
from cocos.kbs.admin.audit_app import audit_routes
from cocos.kbs.admin.gate import AdminGate
from cocos.kbs.admin.service import Administration
from cocos.kbs.admission import RateLimit
from cocos.kbs.audit import Auditor
from cocos.kbs.charges import AdminDoor, Charges
from cocos.kbs.denials import Denials
from cocos.kbs.metrics import KbsMetrics
from cocos.kbs.openapi import GUEST, HANDSHAKE, PATH, about
from cocos.kbs.problems import describe
from cocos.kbs.proofs import Proofs, Released
from cocos.kbs.resource_policy import RESOURCE
from cocos.kbs.routes import SlashedRoute
from cocos.kbs.service import Credentials, KbsService
from cocos.stores.health import Health
from cocos.transport.client_address import ClientAddresses
from cocos.transport.openapi import PROBLEM, Content, json_of, openapi_route, operation
from cocos.transport.web import (
    MAX_BODY_BYTES,
    ErrorHook,
    Failed,
    WebApp,
    json_response,
    problem_response,
    read_json,
)
from cocos.wire.kbs import protocol as kbs
from cocos.wire.kbs.generations import EarlyAttestation
from cocos.wire.kbs.proof import NONCE_HEADER, PROOF_HEADER

PREFIX = "/kbs/v0"
MAX_QUERY: Final = 4096
_COOKIE: Final = re.compile(rf"(?:^|;)[ \t]*{kbs.SESSION_COOKIE}=([^;]*)")
_PROBLEM: Final = Content((kbs.Problem,), PROBLEM)


def make_app(
    service: KbsService,
    administration: Administration,
    admins: AdminGate,
    *,
    denials: Denials,
    auditor: Auditor,
    health: Health,
    metrics: KbsMetrics,
    allowance: RateLimit,
    clients: ClientAddresses,
    proofs: Proofs,
    well_known: Sequence[Route] = (),
    max_body_bytes: int = MAX_BODY_BYTES,
    denial_status: int = AccessDeniedError.http_status,
) -> WebApp:
    """Return the ASGI application of a key broker.

    Args:
        service: Use cases of guests.
        administration: Use cases of administrators.
        admins: Admits administrators.
        denials: Keeps why something was denied.
        auditor: Writes the audit log.
        health: Knows whether the storage works.
        metrics: Where everything is counted.
        allowance: Handshakes and refused requests of each client.
        clients: Tells clients apart.
        proofs: Proves to guests that answers are from here.
        well_known: Where the keys of this KBS's tokens are.
        max_body_bytes: Largest request body.
        denial_status: Of the answer when a resource policy says no.
    """
    charges = Charges(allowance, clients)
    api = _Api(service, auditor, health, metrics, charges, proofs=proofs)
    door = AdminDoor(admins, charges)

    def route(path: str, handler: Callable[[Request], Awaitable[Response]], method: str) -> Route:
        return SlashedRoute(f"{PREFIX}/{path}", handler, methods=[method])

    return WebApp(
        _with_description(
            route("auth", api.auth, "POST"),
            route("auth", api.alive, "GET"),
            route("attest", api.attest, "POST"),
            route("resource/{path:path}", api.get_resource, "GET"),
            *admin_routes(administration, door, auditor, prefix=PREFIX),
            *audit_routes(auditor.log, door, prefix=PREFIX),
            *well_known,
            Route("/healthz", api.health),
            Route("/metrics", metrics.http.endpoint),
        ),
        metrics=metrics.http,
        max_body_bytes=max_body_bytes,
        describe=partial(describe, prefix=PREFIX),
        on_error=_recorder(denials, auditor, metrics),
        status=partial(_status, denied=denial_status),
    )


def _status(scope: Scope, error: CocosError, *, denied: int) -> int:
    guest = scope["method"] in {"GET", "HEAD"} and scope["path"].startswith(f"{PREFIX}/{RESOURCE}/")
    return denied if guest and isinstance(error, AccessDeniedError) else error.http_status


def _with_description(*routes: Route) -> list[Route]:
    return [*routes, openapi_route(PATH, routes, about())]


def _recorder(denials: Denials, auditor: Auditor, metrics: KbsMetrics) -> ErrorHook:
    """Return what notes every request that ends in an error."""

    async def record(failed: Failed) -> None:
        if failed.path == f"{PREFIX}/auth":
            metrics.auth_errors.inc()
        elif failed.path == f"{PREFIX}/attest" and not isinstance(failed.error, EvidenceError):
            metrics.attestation_errors.inc()
        trail = auditor.trail(failed.scope)
        if trail.admin:
            await auditor.failed(trail, failed.error)
        elif isinstance(failed.error, AccessDeniedError | AuthenticationError | EvidenceError):
            await auditor.denied(trail, failed.error)
        if not isinstance(failed.error, TooManyRequestsError):
            handshake = failed.path in {f"{PREFIX}/auth", f"{PREFIX}/attest"}
            await denials.record(failed.id, trail.step, failed.error, handshake=handshake)

    return record


class _Api:
    """Request → use case → response, and nothing else."""

    def __init__(
        self,
        service: KbsService,
        auditor: Auditor,
        health: Health,
        metrics: KbsMetrics,
        charges: Charges,
        *,
        proofs: Proofs,
    ) -> None:
        self._service = service
        self._proofs = proofs
        self._auditor = auditor
        self._health = health
        self._metrics = metrics
        self._charges = charges

    @operation("Whether the storage answers")
    async def health(self, _request: Request) -> Response:
        await self._health.check()
        return Response()

    @operation("That the KBS is alive; never anything else", status=405, answer=_PROBLEM)
    async def alive(self, _request: Request) -> Response:
        # The usual check whether a KBS can be reached is a plain GET of this route.
        return problem_response(
            kbs.Problem(
                type=f"{kbs.PROBLEM_TYPE}AttestationError",
                detail="the key broker service is alive; a handshake begins with POST",
                title="method-not-allowed",
            ),
            status=405,
            headers={"Allow": "POST"},
        )

    @operation(
        "Begin a handshake",
        body=json_of(kbs.Request),
        answer=json_of(kbs.Challenge),
        errors=[TooManyRequestsError, EvidenceError],
    )
    async def auth(self, request: Request) -> Response:
        self._metrics.auth_requests.inc()
        self._charges.handshake(request)
        body: kbs.Request = await read_json(request, kbs.Request, "the authentication request")
        opened = await self._service.auth(body, self._auditor.trail(request.scope))
        self._metrics.auth_successes.inc()
        response = json_response(opened.challenge)
        _set_cookie(response, request, opened.session_id, opened.expires)
        return response

    @operation(
        "Show evidence",
        body=json_of(kbs.Attestation, EarlyAttestation),
        answer=json_of(kbs.AttestationResult),
        security=HANDSHAKE,
        errors=[TooManyRequestsError, EvidenceError],
    )
    async def attest(self, request: Request) -> Response:
        self._metrics.attestations.inc()
        session_id = _session_id(request)
        if session_id is None:
            raise AuthenticationError(
                f"the cookie {kbs.SESSION_COOKIE} is missing",
                hint="POST /kbs/v0/auth gives one; send it back with the evidence",
            )
        trail = self._auditor.trail(request.scope)
        with self._charges.refusals(request):
            session = await self._service.attest(session_id, await request.body(), trail)
        response = json_response(kbs.AttestationResult(session.token))
        _set_cookie(response, request, session_id, session.expires)
        return response

    @operation(
        "Get a resource, encrypted to the guest's key",
        answer=json_of(kbs.Response),
        security=GUEST,
        errors=[TooManyRequestsError],
        headers={
            NONCE_HEADER: f"22 to 86 characters of base64url, for a signature of the answer in the "
            f"header {PROOF_HEADER}"
        },
    )
    async def get_resource(self, request: Request) -> Response:
        credentials = Credentials(_session_id(request), _bearer(request))
        trail = self._auditor.trail(request.scope)
        with self._charges.refusals(request):
            path = kbs.ResourcePath.parse(request.path_params["path"])
            released = await self._service.read_resource(credentials, path, _query(request), trail)
            response = json_response(released.sealed)
            await self._prove(response, request, released, f"{RESOURCE}/{path}")
        return response

    async def _prove(
        self, response: Response, request: Request, released: Released, resource: str
    ) -> None:
        nonce = request.headers.get(NONCE_HEADER)
        if nonce is None:
            return
        made = await self._proofs.of(released, resource, nonce, bytes(response.body))
        if made is not None:
            response.headers[PROOF_HEADER] = made


def _set_cookie(
    response: Response, request: Request, session_id: str, expires: dt.datetime
) -> None:
    # Starlette's set_cookie costs as much as the rest of the answer.
    secure = "; Secure" if request.scope["scheme"] == "https" else ""
    response.headers.append(
        "Set-Cookie",
        f"{kbs.SESSION_COOKIE}={session_id}; expires={format_datetime(expires, usegmt=True)}"
        # Without a path: a proxy may have put us below one of its own.
        f"; HttpOnly; SameSite=strict{secure}",
    )


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _session_id(request: Request) -> str | None:
    """Return the cookie that we gave out, which needs no unquoting.

    Python up to 3.11.9 takes the square of a cookie's length for that.
    """
    for header in request.headers.getlist("cookie"):
        if found := _COOKIE.search(header):
            return found[1].strip()
    return None


def _query(request: Request) -> dict[str, str]:
    if len(request.scope["query_string"]) > MAX_QUERY:
        raise FormatError(f"the query has more than {MAX_QUERY} bytes")
    items = request.query_params.multi_items()
    query = dict(items)
    if len(query) != len(items):
        raise FormatError("a name stands twice in the query")
    return query
