# SPDX-License-Identifier: Apache-2.0
"""Confidential data hub and HTTP front, with a real KBS, attestation agent and curl."""

import asyncio
import base64
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from _grpcurl import grpcurl
from _kbs_program import Kbs, start_kbs
from _programs import running
from grpc import aio

from cocos.clients.data_hub import DataHub
from cocos.crypto import kek
from cocos.errors import (
    AuthenticationError,
    CallerError,
    CocosError,
    NotFoundError,
    UnreachableError,
)
from cocos.host import process
from cocos.host.key_folder import KeyFolder
from cocos.wire import ocicrypt, ttrpc
from cocos.wire._generated import keyprovider_pb2 as kp
from cocos.wire._generated import keyprovider_pb2_grpc as kp_grpc
from cocos.wire._generated import ttrpc_pb2 as ttrpc_pb
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group(__name__),
]

BIN = Path(sys.executable).parent
SECRET = ResourcePath.parse("default/secret/1")
KEY = ResourcePath.parse("default/key/1")
OWNER = ResourcePath.parse("default/signing-key/owner")
HUGE = ResourcePath.parse("default/secret/huge")

TABLE = Path(__file__).parents[2] / "support/guest/rest_answers.md"
DOCS = Path(__file__).parents[3] / "docs/operate/guest.md"
BODIES = {
    "body event": '{"domain":"d","operation":"o","content":"c"}',
    "body x": "x",
    "body part": '{"domain":"d"}',
    "body huge": "x" * 100_000,
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


ROWS = [
    cells(line)
    for line in TABLE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| request ")
]


@dataclass
class Guest:
    """A guest with all its services.

    Attributes:
        kbs: Releases three resources to it.
        hub: Address of its hub, ttrpc.
        hub_grpc: Address of another hub, gRPC.
        url: Where curl asks.
        folder: Has the owner's keys.
    """

    kbs: Kbs
    hub: str
    hub_grpc: str
    url: str
    folder: Path


async def cocos_cli(*arguments: str | Path, stdin: bytes = b"") -> Any:
    done = await process.run([BIN / "cocos-cli", *arguments], stdin=stdin, timeout=60)
    return done.stdout.decode().strip()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guest]:
    folder = tmp_path_factory.mktemp("guest")
    agent, hub = f"unix://{folder}/run/aa.sock", f"unix://{folder}/run/cdh.sock"
    key = kek.generate()
    KeyFolder(folder / "keys").store(KEY, key)
    await cocos_cli("keys", "-k", "ecdsa", "-o", folder)
    public = await cocos_cli("secret", "public-key", "--signing-key", folder / "private.pem")
    async with contextlib.AsyncExitStack() as stack:
        kbs = await stack.enter_async_context(start_kbs(folder, "--insecure-allow-sample"))
        for path, data in ((SECRET, b"\0the secret\xff"), (KEY, key), (OWNER, public.encode())):
            await kbs.store(path, data)
        config = folder / "cdh.toml"
        config.write_text(
            f'socket = "{hub}"\n[kbc]\nname = "cc_kbc"\nurl = "{kbs.url}"\n'
            f'[aa]\naa_socket = "{agent}"\n[image]\nwork_dir = "/run/image-rs"\n'
        )
        env = {"AA_KBC_PARAMS": f"cc_kbc::{kbs.url}", "COCOS_AA_ADDRESS": agent}
        await stack.enter_async_context(
            running("attestation-agent", "-a", agent, "--insecure-sample", env=env)
        )
        await stack.enter_async_context(running("confidential-data-hub", "-c", config))
        grpc_hub = await stack.enter_async_context(
            running("confidential-data-hub", "--socket", "127.0.0.1:0", env=env)
        )
        rest = await stack.enter_async_context(
            running("api-server-rest", "-b", "127.0.0.1:0", "-f", "all", "-c", hub, "-a", agent)
        )
        yield Guest(kbs, hub, grpc_hub.address, rest.address, folder)


async def curl(url: str, *arguments: str) -> tuple[int, bytes]:
    """Return status and body, as the real curl gets them."""
    program = shutil.which("curl")
    assert program is not None
    flags = ["-sS", "--noproxy", "*", "--path-as-is", "-w", "%{stderr}%{http_code}"]
    done = await process.run([program, *flags, *arguments, url], timeout=120)
    return int(done.stderr), done.stdout


async def seal(guest: Guest, *arguments: str, stdin: bytes = b"") -> bytes:
    flags = ["--signing-key", str(guest.folder / "private.pem"), "--kid", OWNER.uri]
    text: str = await cocos_cli("secret", *arguments, *flags, stdin=stdin)
    return text.encode()


async def test_resources_on_both_protocols(guest: Guest) -> None:
    for address in (guest.hub, guest.hub_grpc):
        async with DataHub(address) as hub:
            assert await hub.resource(SECRET.uri) == b"\0the secret\xff"
            with pytest.raises(NotFoundError, match="kbs:///default/secret/2"):
                await hub.resource("kbs:///default/secret/2")
            with pytest.raises(CallerError, match="not a resource URI"):
                await hub.resource("default/secret/1")


async def test_sealed_secrets_of_both_forms(guest: Guest) -> None:
    vault = await seal(guest, "vault", SECRET.uri)
    envelope = await seal(
        guest, "envelope", "--key", str(KEY), "--keys", str(guest.folder / "keys"), stdin=b"\0in it"
    )
    async with DataHub(guest.hub) as hub:
        assert await hub.unseal(vault) == b"\0the secret\xff"
        assert await hub.unseal(envelope) == b"\0in it"
        stranger = guest.folder / "stranger"
        stranger.mkdir()
        await cocos_cli("keys", "-k", "ecdsa", "-o", stranger)
        forged = await cocos_cli(
            *("secret", "vault", KEY.uri, "--kid", OWNER.uri),
            *("--signing-key", stranger / "private.pem"),
        )
        with pytest.raises(AuthenticationError, match="expected key"):
            await hub.unseal(forged.encode())
        with pytest.raises(CocosError, match="no sealed secret"):
            await hub.unseal(b"x" * 2**20)


async def test_a_client_that_knows_nothing_but_reflection(guest: Guest) -> None:
    """Every method of the hub, as `grpcurl -d JSON ADDRESS SERVICE/METHOD` calls it."""
    call = "api.GetResourceService/GetResource"
    reply = await grpcurl(guest.hub_grpc, call, json.dumps({"ResourcePath": SECRET.uri}))
    assert base64.b64decode(reply["Resource"]) == b"\0the secret\xff"
    secret = base64.b64encode(await seal(guest, "vault", SECRET.uri)).decode()
    reply = await grpcurl(
        guest.hub_grpc,
        "api.SealedSecretService/UnsealSecret",
        "@",
        stdin=json.dumps({"secret": secret}),
    )
    assert base64.b64decode(reply["plaintext"]) == b"\0the secret\xff"
    with pytest.raises(NotFoundError):
        await grpcurl(guest.hub_grpc, call, '{"ResourcePath": "kbs:///default/secret/2"}')
    for argument in ("no JSON", '{"Other": 1}', '{"ResourcePath": "x"}'):
        with pytest.raises(CallerError):
            await grpcurl(guest.hub_grpc, call, argument)
    with pytest.raises(NotFoundError, match="no method"):
        await grpcurl(guest.hub_grpc, "api.GetResourceService/Other", "{}")


@pytest.mark.parametrize(
    ("name", "method"),
    [("api.SecureMountService", "SecureMount"), ("api.ImagePullService", "PullImage")],
)
async def test_what_the_hub_leaves_to_others(guest: Guest, name: str, method: str) -> None:
    request = ttrpc_pb.Request(service=name, method=method).SerializeToString()
    reader, writer = await asyncio.open_unix_connection(guest.hub.removeprefix("unix://"))
    with contextlib.closing(writer):
        writer.write(ttrpc.frame(1, ttrpc.REQUEST, request))
        header = ttrpc.Header.parse(await reader.readexactly(ttrpc.HEADER_BYTES))
        answer = ttrpc.parse_response(await reader.readexactly(header.length))
    assert answer.status.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    async with aio.insecure_channel(guest.hub_grpc) as channel:
        call: Any = channel.unary_unary(f"/{name}/{method}")
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_hub_unwraps_layer_keys_too(guest: Guest) -> None:
    options = encode({"symkey": bytes(32), "cipheroptions": {"nonce": bytes(16)}})
    key = KeyFolder(guest.folder / "keys").read(KEY)
    assert key is not None
    packet = ocicrypt.Packet(ResourceUri.parse(KEY.uri), kek.wrap(key, options)).encode()
    document = ocicrypt.unwrap_input(packet, ["cc_kbc::null"])
    async with aio.insecure_channel(guest.hub_grpc) as channel:
        reply = await kp_grpc.KeyProviderServiceStub(channel).UnWrapKey(
            kp.KeyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=document)
        )
    assert ocicrypt.parse_unwrap_output(reply.KeyProviderKeyWrapProtocolOutput) == options


async def test_curl_gets_what_the_guest_components_serve(guest: Guest) -> None:
    assert await curl(f"{guest.url}/cdh/resource/default/secret/1") == (200, b"\0the secret\xff")
    status, body = await curl(f"{guest.url}/aa/token?token_type=kbs")
    assert status == 200
    assert list(json.loads(body)) == ["token", "tee_keypair"]
    assert await curl(f"{guest.url}/aa/evidence?runtime_data=abc") == (
        200,
        b'{"svn":"1","report_data":"YWJj"}',
    )
    assert await curl(f"{guest.url}/aa/evidence?runtime_data=YWJj-_8&encoding=base64") == (
        200,
        b'{"svn":"1","report_data":"YWJj+/8="}',
    )
    assert await curl(f"{guest.url}/aa/additional-evidence?runtime_data=abc") == (200, b"")
    status, body = await curl(f"{guest.url}/info")
    assert (status, json.loads(body)) == (
        200,
        {"version": "0.1.0", "feature": "all", "tee": "sample"},
    )
    event = json.dumps({"domain": "d", "operation": "o", "content": "c"})
    status, body = await curl(f"{guest.url}/aa/aael", "-d", event)
    assert (status, json.loads(body)["success"]) == (200, "false")
    assert "no event log" in json.loads(body)["message"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
async def test_the_answers_are_upstreams_or_the_table_says_why(
    guest: Guest, row: list[str]
) -> None:
    request, more, upstream, ours, why = row
    method, path = request.split()
    flags = ["-I"] if method == "HEAD" else ["-X", method]
    if more:
        flags += ["-d", BODIES[more]] if more in BODIES else ["-H", more]
    status, body = await curl(f"{guest.url}{path}", *flags)
    expected, _, kind = (ours or upstream).partition(" ")
    assert status == int(expected), body
    assert bool(ours) == bool(why)
    if method == "HEAD":
        assert b"secret" not in body
    elif status != 200:
        assert {"title", "detail"} <= json.loads(body).keys()
        assert b"Traceback" not in body
    elif kind == "json":
        assert isinstance(json.loads(body), dict)
    else:
        assert (kind == "bytes") == bool(body)


async def test_the_cause_is_in_the_document(guest: Guest) -> None:
    """The status is upstream's; what happened is still told apart."""
    for path, title in (
        ("/cdh/resource/default/secret/2", "not-found"),
        ("/aa/token?token_type=nothing", "bad-request"),
    ):
        status, body = await curl(f"{guest.url}{path}")
        assert (status, json.loads(body)["title"]) == (500, title)


async def test_the_docs_say_why_each_answer_is_another_one() -> None:
    section = DOCS.read_text().partition("### Answers\n")[2].partition("\n## ")[0]
    documented = {cells(line)[0] for line in section.splitlines() if line.startswith("| ")}
    assert documented - {"what"} == {row[4] for row in ROWS if row[4]}
    assert len({tuple(row[:2]) for row in ROWS}) == len(ROWS) > 40


async def test_what_is_switched_off_or_down(guest: Guest, tmp_path: Path) -> None:
    async with running("api-server-rest", "-b", "127.0.0.1:0") as rest:
        assert (await curl(f"{rest.address}/aa/token?token_type=kbs"))[0] == 404
        status, body = await curl(f"{rest.address}/info")
        assert (status, json.loads(body)["feature"]) == (200, "resource")
    flags = ["-b", "127.0.0.1:0", "-f", "attestation", "-a", f"unix://{tmp_path}/aa.sock"]
    async with running("api-server-rest", *flags) as rest:
        assert (await curl(f"{rest.address}/cdh/resource/default/secret/1"))[0] == 404
        status, body = await curl(f"{rest.address}/aa/token?token_type=kbs")
        assert (status, json.loads(body)["title"]) == (500, "unreachable")


async def test_the_hub_refuses_to_start(tmp_path: Path) -> None:
    config = tmp_path / "cdh.toml"
    config.write_text("skip_sealed_secret_verification = true")
    program = BIN / "confidential-data-hub"
    done = await process.run([program, "-c", config], check=False, timeout=60)
    assert done.exit_status == 78
    assert "--insecure-skip-sealed-secret-verification" in done.stderr.decode()


async def test_a_hub_without_kbs_says_so_and_skipping_warns(tmp_path: Path) -> None:
    flags = ["--socket", f"unix://{tmp_path}/s", "--insecure-skip-sealed-secret-verification"]
    async with (
        running("confidential-data-hub", *flags, "--aa", f"unix://{tmp_path}/aa") as program,
        DataHub(program.address) as hub,
    ):
        with pytest.raises(CocosError, match="no KBS is configured"):
            await hub.resource(SECRET.uri)
        with pytest.raises(CocosError, match="no KBS is configured"):
            await hub.unseal(
                b"sealed.."
                b"eyJ2ZXJzaW9uIjoiMC4xLjAiLCJ0eXBlIjoidmF1bHQiLCJuYW1lIjoia2JzOi8vL2EvYi9jIn0."
            )
        assert "sealed-secret.unverified" in program.text
    async with DataHub(f"unix://{tmp_path}/s") as hub:
        with pytest.raises(UnreachableError, match="data hub"):
            await hub.resource(SECRET.uri)
