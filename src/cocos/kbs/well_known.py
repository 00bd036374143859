# SPDX-License-Identifier: Apache-2.0
"""The keys that verify this KBS's tokens, where relying parties look for them.

A JWK set (RFC 7517 §5), and a discovery document that names it, as far as it makes sense
for an issuer that nobody logs in to (OpenID Connect Discovery 1.0 §3).
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos._types import JsonObject
from cocos.transport.openapi import json_of, operation
from cocos.transport.web import json_response

JWKS_PATH: Final = "/.well-known/jwks.json"
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
_CACHE: Final = {"Cache-Control": "public, max-age=60"}


class PublishedKeys(Protocol):
    """An issuer of tokens."""

    async def published(self) -> Mapping[str, Any]:
        """Return the JWK set of the keys whose tokens hold."""
        ...


def well_known_routes(keys: PublishedKeys, *, issuer: str) -> list[Route]:
    """Return routes that anybody may read.

    Args:
        keys: What is published.
        issuer: Claim ``iss`` of tokens.
    """

    @operation("Keys that verify tokens, a JWK set", answer=json_of(JsonObject))
    async def jwks(_request: Request) -> Response:
        return json_response(await keys.published(), headers=_CACHE)

    @operation("Where these keys are", answer=json_of(JsonObject))
    async def discovery(request: Request) -> Response:
        document = {
            "issuer": issuer,
            "jwks_uri": str(request.url.replace(path=JWKS_PATH, query="")),
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        return json_response(document, headers=_CACHE)

    return [
        Route(JWKS_PATH, jwks, methods=["GET"]),
        Route(DISCOVERY_PATH, discovery, methods=["GET"]),
    ]
