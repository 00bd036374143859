# SPDX-License-Identifier: Apache-2.0
"""Real tools for the tests of images: Skopeo and a registry."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _programs import docker_registry

from cocos.host import skopeo
from cocos.host.skopeo import Skopeo


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
