# SPDX-License-Identifier: Apache-2.0
"""An operator's side of the key broker service: resources, policies, reference values."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from cocos._types import JsonObject
from cocos.clients._http import Answer, read_ca
from cocos.clients._kbs_http import BASE, OK, decode, open_server, refusal
from cocos.crypto import base64url
from cocos.wire import json
from cocos.wire.kbs import ResourcePath


class KbsAdmin:
    """Changes what one KBS knows; an async context manager.

    Every method raises AuthenticationError if the KBS does not accept the token,
    UnreachableError if it does not answer and ProtocolError if it answers something else
    than its protocol.

    Args:
        url: Base URL of the KBS.
        token: Admin JWT; None for a KBS that was started without authentication.
        ca_file: The only CA to trust, as PEM; the system's CAs without.
        transport: Instead of the network.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        ca_file: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._server = open_server(url, ca=read_ca(ca_file), transport=transport)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._server.__aexit__(*exc_info)

    async def set_resource(
        self, path: ResourcePath, data: bytes, *, overwrite: bool = True
    ) -> None:
        """Store a resource.

        Args:
            path: Its name.
            data: Its content.
            overwrite: Replace an old one; Trustee's KBS always does.

        Raises:
            StateError: there is one and it may not be overwritten.
        """
        await self._call(
            "POST",
            f"resource/{path}",
            f"to store {path}",
            data,
            "application/octet-stream",
            headers={} if overwrite else {"If-None-Match": "*"},
        )

    async def delete_resource(self, path: ResourcePath) -> None:
        """Delete a resource.

        Raises:
            NotFoundError: there is none.
        """
        await self._call("DELETE", f"resource/{path}", f"to delete {path}")

    async def set_resource_policy(self, text: str) -> None:
        """Set the Rego policy that decides who gets which resource."""
        body = {"policy": base64url.encode(text.encode())}
        await self._call("POST", "resource-policy", "the resource policy", json.encode(body))

    async def set_attestation_policy(self, policy_id: str, text: str) -> None:
        """Set the Rego policy that appraises evidence.

        Args:
            policy_id: ``default_cpu``, ``default_gpu`` or another class.
            text: The policy.
        """
        body = {
            "type": "rego",
            "policy_id": policy_id,
            "policy": base64url.encode(text.encode()),
        }
        await self._call(
            "POST", "attestation-policy", f"the attestation policy {policy_id}", json.encode(body)
        )

    async def register_reference_values(self, values: Mapping[str, Any]) -> None:
        """Register reference values: name → JSON value."""
        payload = base64.b64encode(json.encode(dict(values))).decode("ascii")
        body = {"version": "0.1.0", "type": "sample", "payload": payload}
        await self._call("POST", "reference-value", "reference values", json.encode(body))

    async def get_reference_value(self, name: str) -> Any:
        """Return the value registered under ``name``.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        what = f"the reference value {name}"
        answer = await self._call("GET", f"reference-value/{quote(name)}", what)
        return decode(self._server, answer, Any, what)

    async def explain(self, denial: str) -> JsonObject:
        """Return what the KBS noted about a refusal.

        Args:
            denial: Its id, as the refused guest was told.

        Raises:
            NotFoundError: the KBS knows no such refusal, or has forgotten it.
        """
        what = f"the denial {denial}"
        answer = await self._call("GET", f"denial/{quote(denial, safe='')}", what)
        result: JsonObject = decode(self._server, answer, JsonObject, what)
        return result

    async def _call(
        self,
        method: str,
        route: str,
        what: str,
        content: bytes | None = None,
        content_type: str = "application/json",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = {**self._headers, **(headers or {})}
        if content is not None:
            headers["Content-Type"] = content_type
        answer = await self._server.request(
            method, f"{BASE}/{route}", content=content, headers=headers
        )
        if answer.status != OK:
            raise refusal(self._server, answer, what)
        return answer
