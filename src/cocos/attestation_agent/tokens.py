# SPDX-License-Identifier: Apache-2.0
"""Tokens of KBSs: one client, and so one handshake at a time, for each of them.

The handshake runs here and not where the token is used, because the challenge of a KBS
can be answered by the attester only.
"""

from collections.abc import Callable
from typing import Self

from cocos.clients.kbs import KbsClient
from cocos.clients.kbs_pool import KbsClients
from cocos.clients.kbs_session import Session
from cocos.errors import CallerError, StateError
from cocos.wire.agent_token import TYPE, TYPE_AS, TYPE_AT
from cocos.wire.kbs.address import KbsAddress


class KbsTokens:
    """Gets tokens; an async context manager.

    Args:
        open_client: Makes a client for a KBS's URL.
        configured: The KBS for callers that name none.
    """

    def __init__(
        self, open_client: Callable[[str], KbsClient], *, configured: KbsAddress | None = None
    ) -> None:
        self._configured = configured
        self._clients = KbsClients(open_client)

    async def __aenter__(self) -> Self:
        await self._clients.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._clients.__aexit__(*exc_info)

    async def get(self, token_type: str, *, refused: str = "") -> Session:
        """Return a session with a KBS: the present one, or after a handshake a new one.

        Args:
            token_type: ``kbs`` for the configured KBS, ``kbs::ADDRESS`` for another.
            refused: A token that the KBS does not accept any more; it is not returned.

        Raises:
            CallerError: another type, or an address that is none.
            StateError: no KBS is configured.
            AuthenticationError: the KBS does not accept our evidence.
            UnreachableError: the KBS does not answer.
        """
        client = await self._clients.get(str(self._address_of(token_type)))
        session = await client.session()
        if session.token == refused:
            session = await client.session(ended=session)
        return session

    def _address_of(self, token_type: str) -> KbsAddress:
        if token_type.startswith(TYPE_AT):
            named = KbsAddress.parse(token_type.removeprefix(TYPE_AT))
            return named.trusted_like(self._configured)
        if token_type != TYPE:
            raise CallerError(
                f"tokens of type {token_type[:200]!r} are not made here",
                hint=f"ask for {TYPE}, {TYPE_AT}URL or {TYPE_AS}",
            )
        if self._configured is None:
            raise StateError(
                "this attestation agent knows no KBS",
                hint="start it with AA_KBC_PARAMS=cc_kbc::URL or [token_configs.kbs] url",
            )
        return self._configured
