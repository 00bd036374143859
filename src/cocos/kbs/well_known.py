# SPDX-License-Identifier: Apache-2.0
"""The keys that verify this KBS's tokens, where relying parties look for them.

A JWK set (RFC 7517 §5), and a discovery document that names it, as far as it makes sense
for an issuer that nobody logs in to (OpenID Connect Discovery 1.0 §3).
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.transport.openapi import json_of, operation
from cocos.transport.web import json_response

JWKS_PATH: Final = "/.well-known/jwks.json"
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
_CACHE: Final = {"Cache-Control": "public, max-age=60"}
# What is made from a header of the request is for whoever sent it: a cache that kept it would
# lead others to keys of a stranger's choice.
_NO_CACHE: Final = {"Cache-Control": "no-store"}
_URL: Final = re.compile(r"https?://[^/?#\s]")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class PublishedKeys(Protocol):
    """An issuer of tokens."""

    async def published(self) -> Mapping[str, Any]:
        """Return the JWK set of the keys whose tokens hold."""
        ...


def well_known_routes(keys: PublishedKeys, *, issuer: str) -> list[Route]:
    """Return routes that anybody may read.

    Args:
        keys: What is published.
        issuer: Claim ``iss`` of tokens. If it is a URL, the keys are at it (OpenID Connect
            Discovery 1.0 §4), whatever a request calls this server.
    """
    at = issuer.rstrip("/") if _URL.match(issuer) else None

    @operation("Keys that verify tokens, a JWK set", answer=json_of(JsonObject))
    async def jwks(_request: Request) -> Response:
        return json_response(await keys.published(), headers=_CACHE)

    @operation("Where these keys are", answer=json_of(JsonObject))
    async def discovery(request: Request) -> Response:
        document = {
            "issuer": issuer,
            "jwks_uri": f"{at or _named(request)}{JWKS_PATH}",
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        return json_response(document, headers=_CACHE if at else _NO_CACHE)

    return [
        Route(JWKS_PATH, jwks, methods=["GET"]),
        Route(DISCOVERY_PATH, discovery, methods=["GET"]),
    ]


def _named(request: Request) -> str:
    """Return the base of the URL by which a request names this server."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise FormatError("the Host header names no host")
    return f"{request.scope['scheme']}://{host}"
