# SPDX-License-Identifier: Apache-2.0
"""What a stranger sends is digested and read away from the event loop when it is much."""

import hashlib
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from _kbs import URL, kbs_in_process

from cocos._apart import SMALL
from cocos.kbs import service


class Watched:
    """SHA-256, and in which threads how many bytes went through it."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def sha256(self, data: bytes) -> Any:
        self.seen.append((len(data), threading.get_ident()))
        return hashlib.sha256(data)


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        kbs_in_process(tmp_path) as kbs,
        httpx.AsyncClient(transport=kbs.transport(), base_url=URL) as http,
    ):
        yield http


@pytest.mark.parametrize("size", [100, SMALL, SMALL + 1, 2**20])
async def test_an_attestation_is_digested_elsewhere_when_it_is_large(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    watched = Watched()
    monkeypatch.setattr(service, "hashlib", watched)
    begun = await http.post(
        "/kbs/v0/auth", json={"version": "0.4.0", "tee": "sample", "extra-params": ""}
    )
    cookie = begun.headers["set-cookie"].partition(";")[0]
    body = json.dumps({"x": ""}).replace('""', f'"{"a" * (size - 9)}"').encode()
    assert len(body) == size
    answer = await http.post("/kbs/v0/attest", content=body, headers={"Cookie": cookie})
    assert answer.status_code == 400
    ((length, thread),) = watched.seen
    assert length == size
    assert (thread == threading.get_ident()) == (size <= SMALL)
