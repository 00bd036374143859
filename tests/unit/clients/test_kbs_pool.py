# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest
import structlog

from cocos.attesters import InsecureSampleAttester
from cocos.clients import kbs_pool
from cocos.clients.kbs import KbsClient
from cocos.clients.kbs_pool import KbsClients
from cocos.errors import ConfigError


def pool() -> KbsClients:
    return KbsClients(lambda url: KbsClient(url, InsecureSampleAttester()))


async def test_a_kbs_that_anybody_can_be_is_warned_about() -> None:
    with structlog.testing.capture_logs() as logs:
        async with pool() as clients:
            await clients.get("http://kbs.test")
            await clients.get(f"http://kbs.test#token-key={'A' * 43}")
    assert [(each["event"], each["url"]) for each in logs] == [
        ("kbs.unauthenticated", "http://kbs.test")
    ]


async def test_all_who_ask_share_one_client() -> None:
    async with pool() as clients:
        found = await asyncio.gather(*(clients.get("http://a") for _ in range(10)))
        assert len(set(map(id, found))) == 1
        assert await clients.get("http://b") is not found[0]


async def test_nobody_can_take_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kbs_pool, "MAX_CLIENTS", 3)
    async with pool() as clients:
        used = await clients.get("http://used")
        for number in range(100):
            await clients.get(f"http://junk{number}")
            assert await clients.get("http://used") is used
            assert len(clients._clients) <= 3


async def test_what_is_no_url_takes_no_room() -> None:
    async with pool() as clients:
        with pytest.raises(ConfigError, match="the URL of the KBS"):
            await clients.get("http://" + "x" * 10**6)
        assert not clients._clients
