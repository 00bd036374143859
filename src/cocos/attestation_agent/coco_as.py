# SPDX-License-Identifier: Apache-2.0
"""Tokens of an attestation service without a KBS: passports to show to whoever trusts it.

What a token is worth depends on what its evidence is bound to. The guest components bind it
to nothing; ours is bound to what the caller passes, such as the nonce of who will see the
token and a key of the caller's, and to the init data.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from cocos._types import JsonObject
from cocos.attestation_agent.machine import Machine
from cocos.errors import AuthenticationError, EvidenceError
from cocos.wire import json
from cocos.wire.kbs.protocol import InitData, Tee, report_data


class Appraiser(Protocol):
    """An attestation service, by REST or gRPC."""

    async def evaluate(
        self,
        tee: Tee,
        evidence: Any,
        additional: Mapping[Tee, Any],
        runtime_data: JsonObject,
        init_data: InitData | None,
    ) -> str:
        """Have evidence appraised and return the token."""
        ...


class CocoAsTokens:
    """Gets tokens; each one is new.

    Args:
        machine: Makes evidence.
        open_service: Opens a connection to the attestation service.
        init_data: What the host passed in, for the service to appraise.
    """

    def __init__(
        self,
        machine: Machine,
        open_service: Callable[[], AbstractAsyncContextManager[Appraiser]],
        init_data: InitData | None,
    ) -> None:
        self._machine = machine
        self._open_service = open_service
        self._init_data = init_data

    async def get(self, runtime_data: JsonObject) -> str:
        """Return a token, a JWT.

        Args:
            runtime_data: What the evidence is bound to; it is in the token's claims.

        Raises:
            FormatError: the runtime data has no canonical form.
            AuthenticationError: the service does not accept our evidence.
            UnreachableError: it does not answer.
        """
        shared = report_data(runtime_data)
        additional = await self._machine.additional_evidence(shared)
        bound = {**runtime_data, "additional-evidence": additional}
        evidence = await self._machine.evidence(report_data(bound))
        devices: dict[Tee, object] = (
            json.decode(additional, dict[Tee, object], "the devices' evidence")
            if additional
            else {}
        )
        tee = await self._machine.tee()
        async with self._open_service() as service:
            try:
                return await service.evaluate(tee, evidence, devices, bound, self._init_data)
            except EvidenceError as error:
                # Why is for the service's operator, who has it in his log.
                raise AuthenticationError(error.message) from error
