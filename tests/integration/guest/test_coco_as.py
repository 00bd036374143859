# SPDX-License-Identifier: Apache-2.0
"""Tokens of a real attestation service, fetched by a real attestation agent."""

import json
from pathlib import Path

import pytest
from _attestation import attestation_server
from _programs import running

from cocos._types import JsonObject
from cocos.clients.attestation_agent import AttestationAgent
from cocos.crypto import jwk, jwt
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import AuthenticationError, CallerError, UnreachableError

pytestmark = pytest.mark.integration

INIT_DATA = '{"version": "0.1.0", "algorithm": "sha384", "data": {"note": "from the host"}}'
BOUND = {"nonce": "of who will see it", "tee-pubkey": TeeKeyPair.generate().public_jwk()}


def claims_of(token: bytes, part: str) -> JsonObject:
    text = token.decode()
    claims = jwk.from_jwk(jwt.header_of(text)["jwk"], "the key").verify(text)
    found: JsonObject = claims["submods"][part]["ear.veraison.annotated-evidence"]
    return found


async def test_a_token_says_what_it_is_bound_to(tmp_path: Path) -> None:
    config, init_data = tmp_path / "aa.json", tmp_path / "init-data"
    init_data.write_text(INIT_DATA)
    env = {"ENABLE_SAMPLE_DEVICE": "yes"}
    async with attestation_server(tmp_path, insecure_allow_sample=True) as address:
        config.write_text(json.dumps({"token_configs": {"coco_as": {"url": address}}}))
        flags = ("-a", f"unix://{tmp_path}/aa.sock", "-c", config, "-t", init_data)
        async with (
            running("attestation-agent", *flags, "--insecure-sample", env=env) as program,
            AttestationAgent(program.address) as agent,
        ):
            token = await agent.get_token("coco_as", runtime_data=json.dumps(BOUND).encode())
            cpu = claims_of(token, "cpu0")
            assert {n: cpu["runtime_data_claims"][n] for n in BOUND} == BOUND
            assert cpu["init_data_claims"] == {"note": "from the host"}
            assert claims_of(token, "gpu0")["runtime_data_claims"] == BOUND
            assert claims_of(await agent.get_token("coco_as"), "cpu0")
            for bad in (b"[]", b"{", b"\xff", b'{"a": 1e999}'):
                with pytest.raises(CallerError):
                    await agent.get_token("coco_as", runtime_data=bad)
    async with (
        running("attestation-agent", *flags, "--insecure-sample") as program,
        AttestationAgent(program.address) as agent,
    ):
        with pytest.raises(UnreachableError, match="attestation service"):
            await agent.get_token("coco_as")


async def test_a_service_that_does_not_count_our_evidence(tmp_path: Path) -> None:
    config = tmp_path / "aa.toml"
    async with attestation_server(tmp_path) as address:
        config.write_text(f'[token_configs.coco_as]\nurl = "{address}"\n')
        flags = ("-a", f"unix://{tmp_path}/aa.sock", "-c", config, "--insecure-sample")
        async with (
            running("attestation-agent", *flags) as program,
            AttestationAgent(program.address) as agent,
        ):
            with pytest.raises(AuthenticationError, match="sample"):
                await agent.get_token("coco_as")
