# SPDX-License-Identifier: Apache-2.0
"""Tokens that an agent hands out, from a real key broker in process."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from _kbs import URL, InProcessKbs, kbs_in_process
from _through import Through

from cocos._types import JsonObject
from cocos.attestation_agent.coco_as import CocoAsTokens
from cocos.attestation_agent.machine import Machine
from cocos.attestation_agent.service import AttestationAgent
from cocos.attestation_agent.tokens import KbsTokens
from cocos.attesters import InsecureSampleAttester
from cocos.clients.kbs import KbsClient
from cocos.errors import FormatError
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.kbs.protocol import InitData, Tee, report_data

KEY = "token-key=" + "A" * 43


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    async with kbs_in_process(tmp_path) as kbs:
        yield kbs


class Opened:
    """Clients of one broker, whatever address they were asked for."""

    def __init__(self, kbs: InProcessKbs) -> None:
        self.machine = Machine(InsecureSampleAttester())
        self.asked: list[str] = []
        self.closed = 0
        self._kbs = kbs

    def __call__(self, url: str) -> KbsClient:
        opened = self

        class Client(KbsClient):
            async def __aexit__(self, *exc_info: object) -> None:
                opened.closed += 1
                await super().__aexit__(*exc_info)

        self.asked.append(url)
        return Client(URL, self.machine, transport=Through(self._kbs.transport(), URL))


async def test_one_token_for_all_until_it_is_refused(kbs: InProcessKbs) -> None:
    opened = Opened(kbs)
    async with KbsTokens(opened, configured=KbsAddress.parse(URL)) as tokens:
        first = (await tokens.get("kbs")).token
        for refused in ("", "another one", first[:-1]):
            assert (await tokens.get("kbs", refused=refused)).token == first
        assert kbs.handshakes == 1
        second = (await tokens.get("kbs", refused=first)).token
        assert second != first
        # Whoever comes late with the old one gets what the first who came got.
        assert (await tokens.get("kbs", refused=first)).token == second
        assert kbs.handshakes == 2
        assert opened.closed == 0
    assert opened.closed == 1


@pytest.mark.parametrize(
    ("type_", "asked"),
    [
        ("kbs", f"http://kbs:1#{KEY}"),
        ("kbs::http://kbs:1", f"http://kbs:1#{KEY}"),
        ("kbs::http://other", "http://other"),
    ],
)
async def test_which_kbs_is_asked(kbs: InProcessKbs, type_: str, asked: str) -> None:
    opened = Opened(kbs)
    async with KbsTokens(opened, configured=KbsAddress.parse(f"http://kbs:1#{KEY}")) as tokens:
        await tokens.get(type_)
    assert opened.asked == [asked]


async def test_guest_components_get_what_they_know(kbs: InProcessKbs) -> None:
    opened = Opened(kbs)
    async with KbsTokens(opened, configured=KbsAddress.parse(URL)) as tokens:
        agent = AttestationAgent(opened.machine, tokens)
        plain = json.loads(await agent.token("kbs"))
        ours = json.loads(await agent.token(f"kbs::{URL}"))
    assert list(plain) == ["token", "tee_keypair"]
    assert list(ours) == ["token", "tee_keypair", "session"]
    assert ours["token"] == plain["token"]
    assert "PRIVATE KEY" in plain["tee_keypair"]


class Reader:
    """An attestation service that says what it was shown."""

    async def evaluate(
        self,
        tee: Tee,
        evidence: Any,
        additional: Mapping[Tee, Any],
        runtime_data: JsonObject,
        init_data: InitData | None,
    ) -> str:
        assert init_data is None
        return json.dumps([tee, evidence["report_data"], dict(additional), runtime_data])


@contextlib.asynccontextmanager
async def reader() -> AsyncIterator[Reader]:
    yield Reader()


async def test_a_passport_is_bound_to_what_its_bearer_says(kbs: InProcessKbs) -> None:
    opened = Opened(kbs)
    passports = CocoAsTokens(opened.machine, reader, None)
    async with KbsTokens(opened) as tokens:
        agent = AttestationAgent(opened.machine, tokens, passports)
        for asked in ({}, {"nonce": "n", "key": {"x": 1}}):
            text = json.dumps(asked).encode() if asked else b""
            tee, carried, devices, bound = json.loads(
                await agent.token("coco_as", runtime_data=text)
            )
            assert (tee, devices) == ("sample", {})
            assert bound == {**asked, "additional-evidence": ""}
            assert base64.b64decode(carried) == report_data(bound)
        for malformed in (b"[]", b"1", b"{", b"\xff"):
            with pytest.raises(FormatError, match="runtime data"):
                await agent.token("coco_as", runtime_data=malformed)
    assert not opened.asked
