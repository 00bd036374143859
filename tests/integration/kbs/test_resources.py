# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from cocos.attesters import InsecureSampleAttester
from cocos.clients.resources import KbsResources
from cocos.errors import ConfigError, UnreachableError
from cocos.wire.kbs.protocol import ResourceUri

pytestmark = pytest.mark.integration

URIS = [ResourceUri.parse(f"kbs:///default/key/{number}") for number in range(5)]


async def test_everybody_is_told_of_his_own_resource() -> None:
    """One handshake fails for all of them, with one error."""
    async with KbsResources(InsecureSampleAttester(), url="http://127.0.0.1:1") as resources:
        found = await asyncio.gather(*(resources.get(u) for u in URIS), return_exceptions=True)
    for uri, error in zip(URIS, found, strict=True):
        assert isinstance(error, UnreachableError)
        assert error.message.startswith(f"resource {uri}: the KBS at http://127.0.0.1:1")
        assert error.message.count("resource") == 1


async def test_without_a_kbs_nothing_is_asked() -> None:
    async with KbsResources(InsecureSampleAttester(), url=None) as resources:
        with pytest.raises(ConfigError, match="no KBS is configured"):
            await resources.get(URIS[0])
