# SPDX-License-Identifier: Apache-2.0
"""Tokens of an attestation service without a KBS: passports to show to whoever trusts it.

What a token is worth depends on what its evidence is bound to. The guest components bind it
to nothing; ours is bound to what the caller passes, such as the nonce of who will see the
token and a key of the caller's, and to the init data.
"""

from cocos._types import JsonObject
from cocos.attestation_agent.machine import Machine
from cocos.clients.attestation_service import AttestationServiceClient, Place
from cocos.errors import AuthenticationError, EvidenceError
from cocos.wire import json
from cocos.wire.kbs import InitData, Tee, report_data


class CocoAsTokens:
    """Gets tokens; each one is new.

    Args:
        machine: Makes evidence.
        place: The attestation service.
        init_data: What the host passed in, for the service to appraise.
    """

    def __init__(self, machine: Machine, place: Place, init_data: InitData | None) -> None:
        self._machine = machine
        self._place = place
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
        async with AttestationServiceClient(self._place) as service:
            try:
                return await service.evaluate(
                    await self._machine.tee(),
                    evidence,
                    devices,
                    bound,
                    self._init_data,
                    state=None,
                )
            except EvidenceError as error:
                # Why is for the service's operator, who has it in his log.
                raise AuthenticationError(error.message) from error
