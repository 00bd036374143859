# SPDX-License-Identifier: Apache-2.0
"""Keys that a KBS keeps: fetched by attestation, registered by its administrator."""

import asyncio
import contextlib
from pathlib import Path
from typing import Self

from cocos._clock import Clock
from cocos.clients.kbs import EvidenceSource, KbsAdmin, KbsClient, TokenSource
from cocos.crypto import admin_jwt, kek
from cocos.errors import CocosError, ConfigError, FormatError, UnreachableError
from cocos.wire.kbs import InitData, ResourcePath, ResourceUri

REQUEST_SECONDS = 60.0
"""For one key, handshake included. Skopeo itself would wait for ever."""


class KbsKeys:
    """Fetches keys as any guest does; an async context manager.

    There is one client per KBS, and one request at a time per key, however many layers ask
    for it.

    Args:
        source: The attestation agent, or who makes evidence without one.
        url: The KBS to ask when a request names none.
        ca_file: The only CA to trust.
        init_data: What the host passed in, for the KBS to appraise; an agent knows it itself.
    """

    def __init__(
        self,
        source: EvidenceSource | TokenSource,
        *,
        url: str | None,
        ca_file: Path | None = None,
        init_data: InitData | None = None,
    ) -> None:
        self._source = source
        self._url = url
        self._ca_file = ca_file
        self._init_data = init_data
        self._stack = contextlib.AsyncExitStack()
        self._opening = asyncio.Lock()
        self._clients: dict[str, KbsClient] = {}
        self._running: dict[tuple[str, ResourceUri], asyncio.Task[bytes]] = {}

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for job in self._running.values():
            job.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._stack.aclose()

    async def key(self, uri: ResourceUri, url: str | None = None) -> bytes:
        """Return the 32 bytes of a key.

        Args:
            uri: The key's resource.
            url: The KBS; the configured one if None.

        Raises:
            NotFoundError: the KBS has no such resource.
            AuthenticationError: it does not accept this machine's evidence.
            AccessDeniedError: its policy says no.
            FormatError: what it has is no key; the message names the length found.
            UnreachableError: it, or the attestation agent, does not answer.
        """
        server = url or self._url
        if server is None:
            raise ConfigError(
                f"the key {uri} is needed, but no KBS is configured",
                hint="start the key provider with --kbs URL, or decrypt with cc_kbc::URL",
            )
        job = self._running.get((server, uri))
        if job is None:
            job = asyncio.create_task(self._fetch(uri, server))
            self._running[server, uri] = job
            job.add_done_callback(lambda done: self._finished((server, uri), done))
        return await asyncio.shield(job)

    def _finished(self, name: tuple[str, ResourceUri], job: asyncio.Task[bytes]) -> None:
        del self._running[name]
        if not job.cancelled():
            job.exception()  # all who asked may have gone

    async def _fetch(self, uri: ResourceUri, url: str) -> bytes:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                data = await (await self._client(url)).get_resource(uri)
        except TimeoutError as error:
            raise UnreachableError(
                f"key {uri}: the KBS at {url} did not answer within {REQUEST_SECONDS:g} s"
            ) from error
        except CocosError as error:
            # Whoever runs Skopeo sees this sentence and nothing else.
            if str(uri) not in error.message:
                error.message = f"key {uri}: {error.message}"
            raise
        return kek.parse(data, f"the key {uri} at {url}")

    async def _client(self, url: str) -> KbsClient:
        async with self._opening:
            if url not in self._clients:
                client = KbsClient(
                    url, self._source, ca_file=self._ca_file, init_data=self._init_data
                )
                self._clients[url] = await self._stack.enter_async_context(client)
            return self._clients[url]


class Registrar:
    """Stores new keys at a KBS with the administrator's key.

    Args:
        url: The KBS.
        private_key: Ed25519 private key of the administrator, PEM; None for a KBS that
            was started without authentication.
        clock: For the token.
        ca_file: The only CA to trust.
    """

    def __init__(
        self, url: str, *, private_key: bytes | None, clock: Clock, ca_file: Path | None = None
    ) -> None:
        self.url = url
        self._private_key = private_key
        self._clock = clock
        self._ca_file = ca_file

    async def register(self, key: ResourcePath, data: bytes, *, new: bool) -> None:
        """Store a key.

        Args:
            key: Its name.
            data: The key.
            new: It was made just now, so that one of that name must be somebody else's.

        Raises:
            StateError: it is new, and the KBS has another one of that name.
            AuthenticationError: the KBS does not accept the administrator's key.
            UnreachableError: it does not answer.
        """
        token = None
        if self._private_key is not None:
            token = admin_jwt.mint(self._private_key, now=self._clock())
        async with KbsAdmin(self.url, token=token, ca_file=self._ca_file) as admin:
            await admin.set_resource(key, data, overwrite=not new)


def resource_path(uri: ResourceUri) -> ResourcePath | None:
    """Return the path of a plain KBS resource, None for a plugin's or an odd one."""
    if uri.plugin != "resource" or uri.query:
        return None
    try:
        return ResourcePath.parse(uri.path)
    except FormatError:
        return None
