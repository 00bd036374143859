# SPDX-License-Identifier: Apache-2.0
"""An attestation service somewhere else, over the HTTP of Trustee's restful-as."""

import re
from collections.abc import Mapping
from typing import Any, Final, Self

from cocos._types import JsonObject
from cocos.clients._http import HttpServer
from cocos.clients._kbs_http import OK, USER_AGENT, one_line, problem_of
from cocos.crypto import base64url
from cocos.errors import EvidenceError, ProtocolError
from cocos.wire import json
from cocos.wire.attestation_rest import (
    ATTESTATION_ROUTE,
    AttestationBody,
    Bound,
    Shown,
    VerificationRequest,
)
from cocos.wire.kbs.protocol import InitData, Tee, without_devices

_JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_WHAT: Final = "the attestation service"
_REFUSED: Final = {401, 500}  # restful-as knows 500 alone


class RestAttestationService:
    """Talks to one attestation service; an async context manager.

    Args:
        url: Base URL.
        ca: The only CA to trust, as PEM; the system's without.
    """

    def __init__(self, url: str, *, ca: str | None = None) -> None:
        self._server = HttpServer(url, what=_WHAT, user_agent=USER_AGENT, ca=ca)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.__aexit__()

    async def evaluate(
        self,
        tee: Tee,
        evidence: Any,
        additional: Mapping[Tee, Any],
        runtime_data: JsonObject,
        init_data: InitData | None,
    ) -> str:
        """Have evidence appraised and return the token.

        Args:
            tee: Primary attester.
            evidence: Its evidence.
            additional: Evidence of devices.
            runtime_data: What the primary attester's evidence must be bound to.
            init_data: What the host passed in, in clear.

        Raises:
            EvidenceError: it does not hold.
            ProtocolError: an answer that is not of this protocol.
            UnreachableError: no answer.
        """
        shared = without_devices(runtime_data)
        primary = _request(tee, evidence, runtime_data, init_data)
        devices = [_request(kind, each, shared, None) for kind, each in additional.items()]
        answer = await self._server.request(
            "POST",
            ATTESTATION_ROUTE,
            content=json.encode(AttestationBody([primary, *devices])),
            headers={"Content-Type": "application/json"},
        )
        if answer.status == OK:
            return self._token(answer.body)
        problem = problem_of(answer)
        words = one_line(
            answer.body.decode("utf-8", "replace") if problem is None else problem.detail
        )
        said = ProtocolError(
            f"{_WHAT} at {self._server.url} answered status {answer.status}: {words}"
        )
        if answer.status not in _REFUSED:
            raise said
        if problem is None:
            # Another implementation's words may be for its operator only.
            raise EvidenceError(f"{_WHAT} refuses the evidence") from said
        raise EvidenceError(words)

    def _token(self, body: bytes) -> str:
        token = body.decode("ascii", "replace").strip()
        if not _JWT.fullmatch(token):
            raise ProtocolError(f"what answers at {self._server.url} is not {_WHAT}: no token")
        return token


def _request(
    tee: Tee, evidence: Any, bound: JsonObject, init_data: InitData | None
) -> VerificationRequest:
    return VerificationRequest(
        tee=tee.value,
        evidence=base64url.encode(json.encode(evidence)),
        runtime_data=Bound(structured=bound),
        init_data=None if init_data is None else Shown.of(init_data),
        runtime_data_hash_algorithm="sha384",
    )
