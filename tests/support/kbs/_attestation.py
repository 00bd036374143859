# SPDX-License-Identifier: Apache-2.0
"""An attestation service on a real socket, inside the test's process."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from _engine import LocalEngine
from _programs import Running

from cocos._clock import Clock, system_clock
from cocos.attestation_service.server import services
from cocos.attestation_service.service import AttestationService
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.cli.kbs.attestation import own_service
from cocos.kbs.config import Settings
from cocos.stores.sql import SqlStore, storage_url
from cocos.transport.rpc import serve
from cocos.wire.attestation_rpc import MAX_MESSAGE_BYTES


@contextlib.asynccontextmanager
async def service_in(
    folder: Path, *, clock: Clock = system_clock, **settings: Any
) -> AsyncIterator[tuple[AttestationService, SigningKeys]]:
    """Have an attestation service with its storage in a folder, and what it signs with."""
    store = await SqlStore.open(storage_url(str(folder / "as")), clock=clock)
    try:
        yield own_service(Settings(**settings), store, LocalEngine(), clock=clock)
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def attestation_server(
    folder: Path, *, clock: Clock = system_clock, name: str = "as", **settings: Any
) -> AsyncIterator[str]:
    """Have one; yields its address. Those of one folder are replicas."""
    async with (
        service_in(folder, clock=clock, **settings) as (service, keys),
        serve(
            f"unix:{folder}/{name}.sock",
            services(service, keys),
            max_message_bytes=MAX_MESSAGE_BYTES,
        ) as address,
    ):
        yield address


def http_of(program: Running) -> str:
    """Return where a grpc-as serves HTTP."""
    (url,) = [line.split("at=")[1].split()[0] for line in program.log if "as.http" in line]
    return url
