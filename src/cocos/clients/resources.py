# SPDX-License-Identifier: Apache-2.0
"""Resources for the guest's programs, fetched as any guest does.

There is one client per KBS. What the configured KBS is known by counts also where a request
names it again, without that: nothing falls back to believing whoever answers. Every call
asks the KBS itself, in the session of this moment: what is on its way to one computation is
never given to another, which may have been measured meanwhile, and what a KBS released once
it may refuse the next time.
"""

import asyncio
import copy
from pathlib import Path
from typing import Final, Protocol, Self

import structlog

from cocos._patience import Patience, Wait
from cocos.clients._kbs_http import address_of
from cocos.clients.kbs import EvidenceSource, KbsClient, TokenSource
from cocos.clients.kbs_pool import KbsClients
from cocos.errors import CocosError, ConfigError, UnreachableError
from cocos.wire.kbs.protocol import InitData, ResourceUri

_log = structlog.get_logger(__name__)

REQUEST_SECONDS: Final = 60.0
"""For one resource, handshake included. Skopeo itself would wait for ever."""


class ResourceSource(Protocol):
    """Where resources come from."""

    async def get(self, uri: ResourceUri, url: str | None = None) -> bytes:
        """Return a resource.

        Args:
            uri: Its name.
            url: Address of the KBS to ask; the configured one if None.

        Raises:
            NotFoundError: there is no such resource.
            CocosError: as the KBS says.
        """
        ...


class KbsResources:
    """Resources of KBSs; an async context manager.

    Args:
        source: The attestation agent, or who makes evidence without one.
        url: Address of the KBS to ask when a request names none.
        ca_file: The only CA to trust for KBSs whose address names nothing.
        init_data: What the host passed in, for the KBS to appraise; an agent knows it itself.
        what: What the resources are, for messages.
        patience: Seconds to wait for a KBS that does not answer now, for each resource; less
            than :data:`REQUEST_SECONDS`.
    """

    def __init__(
        self,
        source: EvidenceSource | TokenSource,
        *,
        url: str | None,
        ca_file: Path | None = None,
        init_data: InitData | None = None,
        what: str = "resource",
        patience: float = 0,
    ) -> None:
        self._patience = patience
        self._configured = None if url is None else address_of(url)
        self._what = what
        self._clients = KbsClients(
            lambda url: KbsClient(url, source, ca_file=ca_file, init_data=init_data)
        )

    async def __aenter__(self) -> Self:
        await self._clients.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._clients.__aexit__(*exc_info)

    async def get(self, uri: ResourceUri, url: str | None = None) -> bytes:
        """Return a resource.

        Raises:
            NotFoundError: the KBS has no such resource.
            AuthenticationError: it does not accept this machine's evidence.
            AccessDeniedError: its policy says no.
            UnreachableError: it, or the attestation agent, does not answer.
        """
        asked = self._configured if url is None else address_of(url)
        if asked is None:
            raise ConfigError(
                f"the {self._what} {uri} is needed, but no KBS is configured",
                hint="start it with AA_KBC_PARAMS=cc_kbc::URL, or decrypt with cc_kbc::URL",
            )
        server = asked.trusted_like(self._configured)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                client = await self._clients.get(str(server))
                patience = Patience(
                    self._patience, tell=lambda wait: _tell(f"{self._what} {uri}", wait)
                )
                return await patience.ask(lambda: client.get_resource(uri))
        except TimeoutError as error:
            raise UnreachableError(
                f"{self._what} {uri}: the KBS at {server.url} did not answer within "
                f"{REQUEST_SECONDS:g} s"
            ) from error
        except CocosError as error:
            if str(uri) in error.message:
                raise
            # Whoever runs Skopeo sees this sentence and nothing else. A copy: those who ask
            # for other resources may have got the same error.
            named = copy.copy(error)
            named.message = f"{self._what} {uri}: {error.message}"
            raise named from error


def _tell(what: str, wait: Wait) -> None:
    _log.warning("kbs.waiting", resource=what, error=wait.error.message, wait=str(wait))
