# SPDX-License-Identifier: Apache-2.0
"""Real tools for the tests: Skopeo and a registry, PostgreSQL and Valkey."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import databases
import pytest
from _databases import Postgres, in_a_thread
from _programs import docker_registry
from hypothesis import HealthCheck, settings

from cocos.host.images import skopeo
from cocos.host.images.skopeo import Skopeo

# How long an example takes says how busy the machine is.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.fixture(scope="session")
def tool() -> Skopeo:
    """A Skopeo that knows key providers, installed into the cache if there is none."""
    return asyncio.run(skopeo.install())


@pytest.fixture
async def registry(tool: Skopeo, tmp_path: Path) -> AsyncIterator[str]:
    """``localhost:PORT`` of an empty registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    async with docker_registry(await skopeo.find_registry(), folder) as address:
        yield address


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL that many tests share; each makes a database of its own."""
    # No test asks what survives the machine's crash.
    server = databases.postgres(tmp_path_factory.mktemp("postgres"), "fsync=off")
    with in_a_thread(server) as running:
        yield Postgres(running)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey that many tests share; their sessions have random ids."""
    with in_a_thread(databases.valkey(tmp_path_factory.mktemp("valkey"))) as running:
        yield running.url
