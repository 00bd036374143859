# SPDX-License-Identifier: Apache-2.0
"""An operator's side of the key broker service: resources, policies, reference values."""

import base64
import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from cocos._types import JsonObject
from cocos.clients._http import Answer, Transport, read_ca
from cocos.clients._kbs_http import (
    BASE,
    OK,
    address_of,
    decode,
    one_line,
    open_server,
    problem_of,
    refusal,
    variant,
)
from cocos.crypto import base64url
from cocos.errors import (
    AuthenticationError,
    CocosError,
    ConfigError,
    FormatError,
    NotFoundError,
    ProtocolError,
    UnsupportedError,
)
from cocos.wire import audit, json
from cocos.wire.kbs.protocol import PolicyStored, ResourcePath
from cocos.wire.reference_values import TIME

_OF_GUESTS: Final = frozenset({"TokenNotFound", "TokenVerifierError"})
_SHOWN: Final = 80
_PACKAGE: Final = re.compile(r"^[\s\ufeff]*package\s", re.MULTILINE)
_NEW: Final = {"If-None-Match": "*"}  # RFC 9110 §13.1.2: nothing is overwritten


class KbsAdmin:
    """Changes what one KBS knows; an async context manager.

    Every method raises AuthenticationError if the KBS does not accept the token,
    UnreachableError if it does not answer and ProtocolError if it answers something else
    than its protocol.

    Args:
        url: Address of the KBS (:mod:`cocos.wire.kbs.address`).
        token: Admin JWT; None for a KBS that was started without authentication.
        advice: What to tell a user whose token is not accepted (:class:`Credentials`).
        ca_file: The only CA to trust, as PEM; the system's CAs without.
        transport: Instead of the network.

    Raises:
        ConfigError: not an address, or it would know the KBS by nothing that holds here.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        advice: str = "",
        ca_file: Path | None = None,
        transport: Transport | None = None,
    ) -> None:
        address = address_of(url)
        if address.token_keys and not address.url.startswith("https:"):
            raise ConfigError(
                f"its token key authenticates the resources of the KBS at {address.url}, and "
                "nothing that administrators are told or tell",
                hint="leave #token-key=… out, or speak TLS to it",
            )
        self._server = open_server(address, ca=read_ca(ca_file), transport=transport)
        self._advice = advice
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
            headers={} if overwrite else _NEW,
        )

    async def delete_resource(self, path: ResourcePath) -> None:
        """Delete a resource.

        Raises:
            NotFoundError: there is none.
        """
        await self._call("DELETE", f"resource/{path}", f"to delete {path}")

    async def list_resources(self, prefix: str = "") -> list[str]:
        """Return the names of resources that start with ``prefix``, sorted."""
        query = f"?prefix={quote(prefix, safe='')}" if prefix else ""
        return await self._names(f"resource{query}", "the list of resources")

    async def unbound_keys(self) -> list[str]:
        """Return the names of keys of images that only the KBS's open global policy guards.

        Raises:
            NotFoundError: the KBS does not tell.
        """
        return await self._names("unbound-key", "the list of unbound keys")

    async def set_resource_policy(
        self, text: str, policy_id: str | None = None, *, overwrite: bool = True
    ) -> tuple[str, ...]:
        """Set a Rego policy that decides who gets which resource; return the KBS's warnings.

        Args:
            text: The policy.
            policy_id: What its resources' routes begin with, such as ``resource/default``;
                None for the policy of everything else. Trustee's KBS knows only that one.
            overwrite: Replace an old one; that of everything else always is.

        Raises:
            StateError: there is one and it may not be overwritten.
        """
        if policy_id is None:
            body = {"policy": base64url.encode(text.encode())}
            answer = await self._call(
                "POST", "resource-policy", "the resource policy", json.encode(body)
            )
        else:
            answer = await self._call(
                "PUT",
                f"resource-policy/{quote(policy_id)}",
                f"the resource policy {policy_id}",
                text.encode(),
                "text/plain",
                headers={} if overwrite else _NEW,
            )
        return _warnings(answer)

    async def list_resource_policies(self) -> list[str]:
        """Return the ids of resource policies."""
        return await self._names("resource-policy", "the list of resource policies")

    async def get_resource_policy(self, policy_id: str) -> str:
        """Return the text of a resource policy.

        Raises:
            NotFoundError: there is none of that id.
        """
        return await self._policy("resource-policy", policy_id)

    async def delete_resource_policy(self, policy_id: str) -> tuple[str, ...]:
        """Delete a stored resource policy; what is more general holds again.

        Returns:
            The KBS's warnings.

        Raises:
            NotFoundError: none of that id is stored.
        """
        return _warnings(await self._delete("resource-policy", policy_id))

    async def set_attestation_policy(self, policy_id: str, text: str) -> tuple[str, ...]:
        """Set the Rego policy that appraises evidence; return the KBS's warnings.

        Args:
            policy_id: ``default_cpu``, ``default_gpu`` or another class.
            text: The policy.
        """
        body = {
            "type": "rego",
            "policy_id": policy_id,
            "policy": base64url.encode(text.encode()),
        }
        answer = await self._call(
            "POST", "attestation-policy", f"the attestation policy {policy_id}", json.encode(body)
        )
        return _warnings(answer)

    async def list_attestation_policies(self) -> list[str]:
        """Return the ids of attestation policies, stored and default."""
        return await self._names("attestation-policy", "the list of attestation policies")

    async def get_attestation_policy(self, policy_id: str) -> str:
        """Return the text of an attestation policy.

        Raises:
            NotFoundError: there is none of that id.
        """
        return await self._policy("attestation-policy", policy_id)

    async def delete_attestation_policy(self, policy_id: str) -> None:
        """Delete a stored attestation policy; a default of that id holds again.

        Raises:
            NotFoundError: none of that id is stored.
        """
        await self._delete("attestation-policy", policy_id)

    async def register_reference_values(self, values: Mapping[str, Any]) -> None:
        """Register reference values: name → JSON value."""
        payload = base64.b64encode(json.encode(dict(values))).decode("ascii")
        body = {"version": "0.1.0", "type": "sample", "payload": payload}
        await self._call("POST", "reference-value", "reference values", json.encode(body))

    async def set_reference_value(
        self,
        name: str,
        value: Any,
        *,
        expires: dt.datetime | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Register one reference value; the KBS's audit log then has its name.

        Args:
            name: Its name.
            value: JSON.
            expires: When; in a year without.
            headers: A condition.

        Raises:
            StateError: the condition does not hold.
        """
        end = "" if expires is None else f"?expiration={expires.strftime(TIME)}"
        route, what = f"reference-value/{quote(name)}{end}", f"the reference value {name}"
        await self._call("PUT", route, what, json.encode(value), headers=headers)

    async def find_reference_value(self, name: str) -> tuple[Any, Mapping[str, str]]:
        """Return a value, or None, and the condition that it is still so, where there is one."""
        what = f"the reference value {name}"
        try:
            answer = await self._call("GET", f"reference-value/{quote(name)}", what)
        except NotFoundError:
            return None, _NEW
        tag = answer.headers.get("ETag")
        return decode(self._server, answer, Any, what), {"If-Match": tag} if tag else {}

    async def get_reference_value(self, name: str) -> Any:
        """Return the value registered under ``name``.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        what = f"the reference value {name}"
        answer = await self._call("GET", f"reference-value/{quote(name)}", what)
        return decode(self._server, answer, Any, what)

    async def list_reference_values(self) -> list[JsonObject]:
        """Return every reference value: ``name``, ``value``, ``expiration``."""
        what = "the list of reference values"
        answer = await self._call("GET", "reference-value", what)
        found: list[JsonObject] = decode(self._server, answer, list[JsonObject], what)
        return found

    async def delete_reference_value(self, name: str) -> None:
        """Delete a reference value.

        Raises:
            NotFoundError: there is none.
        """
        await self._delete("reference-value", name)

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

    async def token_keys(self) -> JsonObject:
        """Return the keys that verify the KBS's tokens, a JWK set that anybody may read.

        Raises:
            NotFoundError: it issues none.
        """
        what = "the keys of its tokens"
        answer = await self._server.request("GET", ".well-known/jwks.json")
        if answer.status != OK:
            raise refusal(self._server, answer, what)
        result: JsonObject = decode(self._server, answer, JsonObject, what)
        return result

    async def audit_page(self, after: int, limit: int = 1000) -> audit.Page:
        """Return records of the audit log, those behind the one numbered ``after``."""
        what = "the audit log"
        answer = await self._call("GET", f"audit?after={after}&limit={limit}", what)
        page: audit.Page = decode(self._server, answer, audit.Page, what)
        return page

    async def audit_head(self) -> audit.Head:
        """Return the newest checkpoint of the audit log, and the key that signed it."""
        what = "the end of the audit log"
        answer = await self._call("GET", "audit/checkpoint", what)
        head: audit.Head = decode(self._server, answer, audit.Head, what)
        return head

    async def _names(self, route: str, what: str) -> list[str]:
        answer = await self._call("GET", route, what)
        names: list[str] = decode(self._server, answer, list[str], what)
        return names

    async def _policy(self, kind: str, policy_id: str) -> str:
        answer = await self._call("GET", f"{kind}/{quote(policy_id)}", f"the {kind} {policy_id}")
        try:
            text = answer.body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"the KBS sent a {kind} that is not UTF-8") from error
        if _PACKAGE.search(text):
            return text
        # Trustee's passes the id over and answers with the ids of all.
        raise UnsupportedError(
            f"the KBS at {self._server.url} did not send the text of the {kind} {policy_id}, but "
            f"{one_line(text[:_SHOWN])}",
            hint="Trustee's KBS never shows policies",
        )

    async def _delete(self, kind: str, name: str) -> Answer:
        return await self._call("DELETE", f"{kind}/{quote(name)}", f"to delete the {kind} {name}")

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
            raise self._refusal(answer, what)
        return answer

    def _refusal(self, answer: Answer, what: str) -> CocosError:
        error, problem = refusal(self._server, answer, what), problem_of(answer)
        if problem is not None and variant(problem) in _OF_GUESTS:
            # Of its guests' routes, which ours has none of for administrators.
            return UnsupportedError(f"the KBS at {self._server.url} does not do this: {what}")
        about_us = problem is not None and variant(problem).startswith("AdminAuth")
        if isinstance(error, AuthenticationError) and about_us and self._advice:
            error.hint = f"{self._advice}; {error.hint}" if error.hint else self._advice
        return error


def _warnings(answer: Answer) -> tuple[str, ...]:
    """Return what a KBS doubts of a policy that it has stored; Trustee's says nothing."""
    if not answer.body:
        return ()
    try:
        stored: PolicyStored = json.decode(answer.body, PolicyStored, "the answer")
    except FormatError:
        return ()
    return tuple(map(one_line, stored.warnings))
