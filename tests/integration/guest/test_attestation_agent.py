# SPDX-License-Identifier: Apache-2.0
"""The real attestation agent, its real client, and a real KBS behind it."""

import asyncio
import base64
import hashlib
import json
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from _grpcurl import grpcurl
from _kbs import admin_pair
from _programs import running
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cocos._clock import system_clock
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.kbs import KbsAdmin, KbsClient
from cocos.crypto import admin_jwt, base64url
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import CallerError, FormatError, StateError, UnreachableError
from cocos.host import process
from cocos.wire._generated import attestation_agent_pb2 as pb
from cocos.wire._generated import attestation_agent_pb2_grpc as pb_grpc
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri, Tee

pytestmark = pytest.mark.integration

PROGRAM = Path(sys.executable).with_name("attestation-agent")
NAME = "attestation_agent.AttestationAgentService"
FREE = ("-a", "127.0.0.1:0", "--insecure-sample")
PATH = ResourcePath.parse("default/key/algo-key")
INIT_DATA = b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\nnote = "from the host"\n'


@pytest.fixture
async def agent() -> AsyncIterator[AttestationAgent]:
    async with (
        running("attestation-agent", *FREE) as program,
        AttestationAgent(program.address) as agent,
    ):
        yield agent


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a real KBS that counts sample evidence and knows one resource."""
    private, public = admin_pair()
    public_file = tmp_path / "admin.pub"
    public_file.write_bytes(public)
    async with running(
        "kbs",
        "--insecure-http",
        "--insecure-allow-sample",
        *("--socket", "127.0.0.1:0"),
        *("--storage", tmp_path / "kbs"),
        *("--auth-public-key", public_file),
    ) as program:
        token = admin_jwt.mint(private, now=system_clock())
        async with KbsAdmin(program.address, token=token) as admin:
            await admin.set_resource(PATH, b"secret")
        yield program.address


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_it_says_what_it_is(agent: AttestationAgent) -> None:
    assert await agent.tee() is Tee.SAMPLE
    assert await agent.additional_tees() == ()


async def test_evidence_carries_the_runtime_data_unhashed(agent: AttestationAgent) -> None:
    assert await agent.evidence(b"runtime data") == {
        "svn": "1",
        "report_data": base64.b64encode(b"runtime data").decode(),
    }
    assert not await agent.additional_evidence(b"runtime data")
    assert (await agent.evidence(bytes(100)))["report_data"] == base64.b64encode(
        bytes(100)
    ).decode()


async def test_sample_measures_and_binds_nothing(agent: AttestationAgent) -> None:
    assert await agent.extend_runtime_measurement("d", "o", "c") == "NOT_ENABLED"
    with pytest.raises(StateError, match="cannot bind init data"):
        await agent.bind_init_data(bytes(32))
    with pytest.raises(CallerError, match="not 3"):
        await agent.bind_init_data(b"abc")


async def test_with_the_event_log_on_sample_still_has_no_register(tmp_path: Path) -> None:
    config = tmp_path / "aa.toml"
    config.write_text("[eventlog_config]\nenable_eventlog = true\n")
    async with (
        running("attestation-agent", *FREE, "-c", config) as program,
        AttestationAgent(program.address) as agent,
    ):
        assert await agent.extend_runtime_measurement("d", "o", "c", register=14) == "NOT_SUPPORTED"


async def test_each_fault_has_its_own_status_code() -> None:
    async with (
        running("attestation-agent", *FREE) as program,
        aio.insecure_channel(program.address) as channel,
    ):
        stub = pb_grpc.AttestationAgentServiceStub(channel)
        codes = {
            "unknown token": await status_of(stub.GetToken(pb.GetTokenRequest(TokenType="x"))),
            "no kbs": await status_of(stub.GetToken(pb.GetTokenRequest(TokenType="kbs"))),
            "init data": await status_of(
                stub.BindInitData(pb.BindInitDataRequest(Digest=bytes(32)))
            ),
            "no digest": await status_of(stub.BindInitData(pb.BindInitDataRequest())),
        }
    assert {name: code.name for name, (code, _) in codes.items()} == {
        "unknown token": "INVALID_ARGUMENT",
        "no kbs": "FAILED_PRECONDITION",
        "init data": "FAILED_PRECONDITION",
        "no digest": "INVALID_ARGUMENT",
    }
    assert "AA_KBC_PARAMS" in codes["no kbs"][1]


async def test_reflection_lists_the_service_and_health_answers() -> None:
    async with (
        running("attestation-agent", *FREE) as program,
        aio.insecure_channel(program.address) as channel,
    ):
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        request = cast("Any", reflection_pb2).ServerReflectionRequest(list_services="")
        names = {
            service.name
            async for answer in reflection.ServerReflectionInfo(iter([request]))
            for service in answer.list_services_response.service
        }
        health: Any = health_pb2_grpc.HealthStub(channel)
        state = await health.Check(health_pb2.HealthCheckRequest(service=NAME))
    assert {NAME, "grpc.health.v1.Health"} <= names
    assert state.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_token_comes_with_its_key_and_opens_resources(kbs: str) -> None:
    env = {"AA_KBC_PARAMS": f"cc_kbc::{kbs}"}
    async with (
        running("attestation-agent", *FREE, env=env) as program,
        AttestationAgent(program.address) as agent,
    ):
        text, *others = await asyncio.gather(*(agent.get_token("kbs") for _ in range(10)))
        async with KbsClient(kbs, agent) as client:
            assert await client.get_resource(ResourceUri.parse(PATH.uri)) == b"secret"
    assert set(others) == {text}, "one handshake serves all until the token expires"
    pair = json.loads(text)
    assert list(pair) == ["token", "tee_keypair"]
    assert text == json.dumps(pair, separators=(",", ":")).encode()
    key = TeeKeyPair.from_pem(pair["tee_keypair"].encode())
    claims = base64url.decode(pair["token"].split(".")[1], "the payload").decode()
    assert key.public_jwk()["x"] in claims


async def test_the_kbs_of_the_config_file_may_ask_for_rsa(kbs: str, tmp_path: Path) -> None:
    config = tmp_path / "aa.toml"
    config.write_text(f'[token_configs.kbs]\nurl = "{kbs}/"\ntee_key_algorithm = "RSA-OAEP-256"\n')
    env = {"AA_KBC_PARAMS": f"cc_kbc::{kbs}"}  # the same, in another spelling
    async with (
        running("attestation-agent", *FREE, "-c", config, env=env) as program,
        AttestationAgent(program.address) as agent,
    ):
        pair = json.loads(await agent.get_token("kbs"))
    assert pair["tee_keypair"].startswith("-----BEGIN RSA PRIVATE KEY-----")


async def test_init_data_of_the_start_is_in_the_token(kbs: str, tmp_path: Path) -> None:
    file = tmp_path / "initdata.toml"
    file.write_bytes(INIT_DATA)
    env = {"AA_KBC_PARAMS": f"cc_kbc::{kbs}"}
    async with (
        running("attestation-agent", *FREE, "-t", file, env=env) as program,
        AttestationAgent(program.address) as agent,
    ):
        pair = json.loads(await agent.get_token("kbs"))
        assert "init-data.unbound" in program.text
    claims = base64url.decode(pair["token"].split(".")[1], "the payload").decode()
    assert "from the host" in claims
    assert base64.b64encode(hashlib.sha256(INIT_DATA).digest()).decode() in claims


async def test_an_unreachable_kbs_is_named() -> None:
    env = {"AA_KBC_PARAMS": "cc_kbc::http://127.0.0.1:9"}
    async with (
        running("attestation-agent", *FREE, env=env) as program,
        AttestationAgent(program.address) as agent,
    ):
        with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9"):
            await agent.get_token("kbs")


async def test_an_agent_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with AttestationAgent(f"unix:{tmp_path}/none.sock") as agent:
        with pytest.raises(UnreachableError, match=r"none\.sock"):
            await agent.tee()


async def test_a_unix_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    socket = tmp_path / "aa.sock"
    async with (
        running("attestation-agent", "-a", f"unix:{socket}", "--insecure-sample") as program,
        AttestationAgent(program.address) as agent,
    ):
        assert program.address == f"unix:{socket}"
        assert await agent.tee() is Tee.SAMPLE
        assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0


async def test_sample_is_allowed_by_the_environment_too_and_warns() -> None:
    env = {"COCOS_INSECURE_SAMPLE": "1"}
    async with running("attestation-agent", "-a", "127.0.0.1:0", env=env) as program:
        assert "attester.insecure" in program.text


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["-a", "127.0.0.1:0"], 69, "--insecure-sample"),
        (["-a", "0.0.0.0:0", "--insecure-sample"], 2, "other machines"),
        ([*FREE, "-c", "/nonexistent/aa.toml"], 66, "/nonexistent/aa.toml"),
        ([*FREE, "-t", "/nonexistent/init.toml"], 66, "/nonexistent/init.toml"),
        ([*FREE, "-i", "no base64"], 2, "base64"),
    ],
)
async def test_it_refuses_to_start(arguments: list[str], status: int, words: str) -> None:
    done = await process.run([PROGRAM, *arguments], check=False, timeout=60)
    assert done.exit_status == status
    assert words in done.stderr.decode()
    assert done.stdout == b""


async def test_malformed_init_data_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "initdata.toml"
    file.write_text('version = "0.1.0"\nalgorithm = "md5"\n[data]\n')
    done = await process.run([PROGRAM, *FREE, "-t", file], check=False, timeout=60)
    assert done.exit_status == FormatError.exit_code


async def test_every_method_by_reflection() -> None:
    """As `grpcurl -plaintext -d JSON ADDRESS SERVICE/METHOD` calls them."""
    env = {"ENABLE_SAMPLE_DEVICE": ""}
    async with running("attestation-agent", *FREE, env=env) as program:

        async def call(method: str, argument: str = "{}") -> Any:
            return await grpcurl(program.address, f"{NAME}/{method}", argument)

        assert await call("GetTeeType") == {"tee": "sample"}
        assert await call("GetAdditionalTees") == {"additionalTees": ["sampledevice"]}
        reply = await call("GetEvidence", '{"RuntimeData": "YWJj"}')
        assert base64.b64decode(reply["Evidence"]) == b'{"svn":"1","report_data":"YWJj"}'
        reply = await call("GetAdditionalEvidence", '{"RuntimeData": "YWJj"}')
        assert json.loads(base64.b64decode(reply["Evidence"])) == {
            "sampledevice": {"svn": "2", "report_data": "YWJj"}
        }
        event = '{"Domain": "d", "Operation": "o", "Content": "c"}'
        assert await call("ExtendRuntimeMeasurement", event) == {"Result": "NOT_ENABLED"}
        with pytest.raises(CallerError, match="not 3"):
            await call("BindInitData", '{"Digest": "YWJj"}')
        with pytest.raises(StateError, match="knows no KBS"):
            await call("GetToken", '{"TokenType": "kbs"}')
