# SPDX-License-Identifier: Apache-2.0
"""What handshakes and refused requests cost the client that sends them."""

import contextlib
from collections.abc import Collection, Iterator
from time import monotonic
from typing import Final

from starlette.requests import Request

from cocos.errors import CocosError
from cocos.kbs.admin.gate import AdminGate, AdminRequest
from cocos.kbs.admission import RateLimit, client_of
from cocos.transport.client_address import ClientAddresses

_SENDERS_FAULT: Final = frozenset({400, 401, 413})
_NO_ADMIN: Final = frozenset({400, 401, 403})


class Charges:
    """Charges each client's allowance; programs of this machine have no limit.

    Args:
        allowance: Handshakes and refused requests of each client.
        clients: Tells clients apart.
    """

    def __init__(self, allowance: RateLimit, clients: ClientAddresses) -> None:
        self._allowance = allowance
        self._clients = clients

    def handshake(self, request: Request) -> None:
        """Charge for a handshake.

        Raises:
            TooManyRequestsError: there is no allowance left.
        """
        address = self._clients.find(request.scope)
        if address is not None:
            self._allowance.admit(client_of(address), monotonic())

    @contextlib.contextmanager
    def refusals(
        self, request: Request, statuses: Collection[int] = _SENDERS_FAULT
    ) -> Iterator[None]:
        """Let in who has allowance left; a request that is refused for itself costs some.

        Raises:
            TooManyRequestsError: there is no allowance left.
        """
        address = self._clients.find(request.scope)
        if address is None:
            yield
            return
        client = client_of(address)
        self._allowance.admit(client, monotonic(), cost=0)
        try:
            yield
        except CocosError as error:
            if error.http_status in statuses:
                self._allowance.charge(client, monotonic())
            raise


class AdminDoor:
    """Asks a gate, and charges those whom it turns away."""

    def __init__(self, gate: AdminGate, charges: Charges) -> None:
        self._gate = gate
        self._charges = charges

    async def admit(self, request: Request) -> str:
        """Return the administrator's name for the log; raise as :class:`AdminGate` does."""
        asked = AdminRequest(request.headers.get("authorization"), request.scope["path"])
        with self._charges.refusals(request, _NO_ADMIN):
            return await self._gate.admit(asked)
