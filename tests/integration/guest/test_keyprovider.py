# SPDX-License-Identifier: Apache-2.0
"""The key provider against a real KBS, with evidence from a real attestation agent."""

import asyncio
import base64
import contextlib
import datetime as dt
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from _kbs_program import Kbs, start_kbs
from _keyprovider import OPTIONS, packet, unwrap, wrap
from _layouts import gzipped, tar, write
from _programs import Running, running
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt, kek
from cocos.errors import (
    AuthenticationError,
    CocosError,
    NotFoundError,
    UnreachableError,
)
from cocos.host import process
from cocos.host.images.skopeo import Copied, Skopeo
from cocos.host.key_folder import KeyFolder
from cocos.policy import owners
from cocos.policy.owners import Terms
from cocos.wire import oci, ocicrypt
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourcePath

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/algo-key")
ANY = Terms()


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[Kbs]:
    """A KBS whose operator counts sample evidence."""
    async with start_kbs(tmp_path, "--insecure-allow-sample") as server:
        yield server


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[str]:
    """Address of an attestation agent that makes sample evidence, and speaks ttrpc."""
    address = f"unix://{tmp_path}/aa.sock"
    async with running(
        "attestation-agent", "--attestation_sock", address, "--insecure-sample"
    ) as program:
        yield program.address


@contextlib.asynccontextmanager
async def provider(*arguments: str | Path) -> AsyncIterator[Running]:
    async with running("coco-keyprovider", "--socket", "127.0.0.1:0", *arguments) as program:
        yield program


def administering(private_key: Path, terms: Terms = ANY) -> list[str | Path]:
    """Flags of a provider that registers keys under a policy."""
    file = private_key.with_suffix(".rego")
    file.write_text(owners.write(terms, said="a test"))
    return ["--auth-private-key", private_key, "--key-policy", file]


async def test_many_layers_cost_one_handshake(kbs: Kbs, agent: str) -> None:
    key = kek.generate()
    await kbs.store(KEY, key)
    async with provider("--kbs", kbs.url, "--aa", agent, "--log-level", "debug") as program:
        answers = await asyncio.gather(*(unwrap(program.address, packet(key)) for _ in range(16)))
        assert answers == [OPTIONS] * 16
        wrapped = await wrap(program.address, f"cc_kbc::{KEY.uri}")
        assert await unwrap(program.address, wrapped) == OPTIONS
        assert "event=key.wrapped" in program.text
        # The layer key, as its JSON has it, and that as the message to us has it.
        for shown in ("AAECAwQ", base64.b64encode(OPTIONS).decode()[:32]):
            assert shown not in program.text
    assert await kbs.requests("POST", "/kbs/v0/auth") == 1


async def test_the_guides_key_and_a_kbs_named_by_the_parameter(kbs: Kbs, agent: str) -> None:
    """A key as `openssl rand -base64 32` makes it; wrapped by attestation like any guest."""
    await kbs.store(KEY, base64.b64encode(kek.generate()) + b"\n")
    async with provider("--kbs", kbs.url, "--aa", agent) as program:
        annotation = await wrap(program.address, f"cc_kbc::{KEY.uri}")
    async with provider("--aa", agent) as program:
        assert await unwrap(program.address, annotation, f"cc_kbc::{kbs.url}") == OPTIONS
        with pytest.raises(CocosError, match=f"{KEY.uri} is needed, but no KBS is configured"):
            await unwrap(program.address, annotation)


async def test_unknown_resource_is_asked_for_once(kbs: Kbs, agent: str) -> None:
    async with provider("--kbs", kbs.url, "--aa", agent) as program:
        with pytest.raises(NotFoundError, match=KEY.uri):
            await unwrap(program.address, packet(kek.generate()))
    assert await kbs.requests("GET", "/kbs/v0/resource") == 1
    assert await kbs.requests("POST", "/kbs/v0/auth") == 1


async def test_key_of_a_wrong_length_is_named(kbs: Kbs, agent: str) -> None:
    await kbs.store(KEY, b"x" * 31)
    async with provider("--kbs", kbs.url, "--aa", agent) as program:
        with pytest.raises(CocosError, match=f"{KEY.uri} is 31 bytes long, not 32"):
            await unwrap(program.address, packet(kek.generate()))


async def test_wrong_key_at_the_kbs(kbs: Kbs, agent: str) -> None:
    await kbs.store(KEY, kek.generate())
    async with provider("--kbs", kbs.url, "--aa", agent) as program:
        with pytest.raises(CocosError, match=f"does not open with the key {KEY.uri}"):
            await unwrap(program.address, packet(kek.generate()))


async def test_sample_evidence_where_it_does_not_count(tmp_path: Path, agent: str) -> None:
    async with start_kbs(tmp_path) as kbs:
        await kbs.store(KEY, key := kek.generate())
        async with provider("--kbs", kbs.url, "--aa", agent) as program:
            with pytest.raises(CocosError, match=f"key {KEY.uri}.*allow") as caught:
                await unwrap(program.address, packet(key))
    assert "sample" in caught.value.message.lower()


async def test_kbs_down_and_agent_down(tmp_path: Path, kbs: Kbs, agent: str) -> None:
    async with provider("--kbs", "http://127.0.0.1:1", "--aa", agent) as program:
        with pytest.raises(UnreachableError, match=rf"{KEY.uri}.*http://127\.0\.0\.1:1"):
            await unwrap(program.address, packet(kek.generate()))
    for scheme in ("unix:", "unix://"):
        nobody = f"{scheme}{tmp_path}/nobody.sock"
        async with provider("--kbs", kbs.url, "--aa", nobody) as program:
            with pytest.raises(UnreachableError, match=f"{KEY.uri}.*attestation agent at {nobody}"):
                await unwrap(program.address, packet(kek.generate()))


async def test_new_key_is_made_once_and_registered(kbs: Kbs, agent: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    flags = ["--kbs", kbs.url, "--aa", agent, "--keys", str(keys)]
    async with provider(*flags, *administering(kbs.key_file)) as program:
        annotations = await asyncio.gather(
            *(wrap(program.address, f"keyid={KEY.uri}") for _ in range(8))
        )
        # Of a plugin's key nobody could tell that it lies somewhere else now.
        with pytest.raises(CocosError, match="cannot be registered"):
            await wrap(program.address, f"keyid=kbs+pkcs11:///{KEY}")
        assert await kbs.requests("POST", "/kbs/v0/resource") == 1
        unnamed = await wrap(program.address, "Enabled")
        assert json.loads(unnamed)["kid"].startswith("kbs:///default/image-kek/")
    assert KeyFolder(keys).read(KEY) is not None
    assert KeyFolder(keys).path(KEY).stat().st_mode & 0o777 == 0o600
    async with provider("--kbs", kbs.url, "--aa", agent) as program:
        for annotation in (*annotations, unnamed):
            assert await unwrap(program.address, annotation) == OPTIONS


async def test_key_file_is_registered_too(kbs: Kbs, agent: str, tmp_path: Path) -> None:
    file = tmp_path / "kek.bin"
    file.write_bytes(kek.generate())
    parameter = f"algorithm=A256CTR::keyid={KEY.uri}::keypath={file}"
    flags = ["--kbs", kbs.url, "--aa", agent, "--insecure-ctr"]
    async with provider(*flags, *administering(kbs.key_file)) as program:
        annotation = await wrap(program.address, parameter)
        assert b'"wrap_type":"A256CTR"' in annotation
        file.write_bytes(b"x" * 33)
        with pytest.raises(CocosError, match=f"the key {file} is 33 bytes long, not 32"):
            await wrap(program.address, parameter)
    async with provider(*flags) as program:
        assert await unwrap(program.address, annotation) == OPTIONS


async def test_new_keys_get_the_policy_that_was_named(kbs: Kbs, agent: str, tmp_path: Path) -> None:
    """WrapKey registers, too: under a policy that no sample evidence satisfies."""
    flags = ["--kbs", kbs.url, "--aa", agent]
    without = [*flags, "--socket", "127.0.0.1:0", "--auth-private-key", str(kbs.key_file)]
    program = Path(sys.executable).parent / "coco-keyprovider"
    refused = await process.run([program, *without], check=False)
    assert refused.exit_status == 2
    assert b"--key-policy" in refused.stderr
    terms = Terms(computations=(owners.only_algorithm("a" * 64),))
    named = administering(kbs.key_file, terms)
    async with provider(*flags, *named, "--keys", str(tmp_path / "keys")) as running_one:
        annotation = await wrap(running_one.address, f"keyid={KEY.uri}")
    async with provider(*flags) as guest:
        with pytest.raises(CocosError, match="policy"):
            await unwrap(guest.address, annotation)
    async with provider(*flags, *administering(kbs.key_file)) as another:
        file = tmp_path / "kek.bin"
        file.write_bytes(kek.generate())
        with pytest.raises(CocosError, match="another policy"):
            await wrap(another.address, f"keyid={KEY.uri}::keypath={file}")


async def test_refused_registration_is_loud(kbs: Kbs, agent: str, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.key"
    stranger.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    flags = ["--kbs", kbs.url, "--aa", agent, "--keys", str(tmp_path / "keys")]
    async with provider(*flags, *administering(stranger)) as program:
        with pytest.raises(AuthenticationError, match=f"{kbs.url} refused.*{KEY.uri} was not reg"):
            await wrap(program.address, f"cc_kbc::{KEY.uri}")
    assert KeyFolder(tmp_path / "keys").read(KEY) is None


async def test_sample_key_must_be_allowed_by_name(agent: str) -> None:
    async with provider("--aa", agent) as program:
        with pytest.raises(CocosError, match="a key that everybody knows"):
            await wrap(program.address, "sample=true")
    async with provider("--aa", agent, "--insecure-sample") as program:
        found = ocicrypt.Packet.parse(await wrap(program.address, "sample=true"))
    assert str(found.key) == "kbs:///default/test-key/1"


async def test_malformed_requests_are_the_callers_fault(agent: str) -> None:
    async with provider("--aa", agent) as program:
        with pytest.raises(CocosError, match="malformed"):
            await unwrap(program.address, b"no packet")
        with pytest.raises(CocosError, match="unknown encryption parameter 'keyld="):
            await wrap(program.address, f"keyld={KEY.uri}")


async def test_reflection_and_health() -> None:
    """What `grpcurl -plaintext 127.0.0.1:50011 list` asks."""

    async def ask() -> AsyncIterator[Any]:
        yield cast("Any", reflection_pb2).ServerReflectionRequest(list_services="")

    async with provider() as program, aio.insecure_channel(program.address) as channel:
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        names = [
            entry.name
            async for answer in reflection.ServerReflectionInfo(ask())
            for entry in answer.list_services_response.service
        ]
        assert "keyprovider.KeyProviderService" in names
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(
            health_pb2.HealthCheckRequest(service="keyprovider.KeyProviderService")
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("flag", "value", "problem"),
    [
        ("--socket", "0.0.0.0:0", "can be reached from other machines"),
        ("--kbs", "foo", "is not the URL of a KBS"),
    ],
)
async def test_refuses_to_start(flag: str, value: str, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        async with running("coco-keyprovider", flag, value):
            pass


async def test_says_where_keys_come_from(tmp_path: Path) -> None:
    async with provider() as program:
        assert "a request names" in program.text
    async with provider("--kbs", "http://kbs.test/", "--keys", tmp_path) as program:
        assert "http://kbs.test" in program.text
        assert str(tmp_path) in program.text


async def test_daemon_answers_when_its_starter_ends(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "coco-keyprovider"
    socket = f"unix:{tmp_path}/kp.sock"
    env = {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    await process.run([program, "--socket", socket, "--daemon"], env=env, timeout=60)
    pid = int((tmp_path / "run" / "coco_keyprovider.pid").read_text())
    try:
        with pytest.raises(CocosError, match="malformed"):
            await unwrap(socket, b"no packet")
    finally:
        os.kill(pid, signal.SIGTERM)
    failed = await process.run(
        [program, "--socket", f"unix:{tmp_path}/no/folder/kp.sock", "--daemon"],
        env=env,
        timeout=60,
        check=False,
    )
    assert failed.exit_status == 69
    assert b"coco_keyprovider.err says why" in failed.stderr
    assert "cannot listen" in (tmp_path / "run" / "coco_keyprovider.err").read_text()


async def test_a_port_in_use_is_said_once() -> None:
    program = Path(sys.executable).parent / "coco-keyprovider"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await process.run([program, "--socket", address], timeout=60, check=False)
    assert done.exit_status == 69
    assert done.stderr.decode().splitlines() == [
        f"coco-keyprovider: cannot listen on {address}",
        "  hint: is it in use, or not of this machine?",
    ]


async def test_skopeo_through_registry_and_kbs(
    tool: Skopeo, registry: str, kbs: Kbs, agent: str, tmp_path: Path
) -> None:
    layers = [tar(name, os.urandom(2**16)) for name in "abcdefghi"]
    write(tmp_path / "plain", [gzipped(layer) for layer in layers])
    await kbs.store(KEY, kek.generate())
    config = tmp_path / "ocicrypt.json"
    remote = f"docker://{registry}/algo:v1"

    async def pull(name: str) -> Copied:
        return await tool.copy(
            remote,
            f"oci:{tmp_path}/{name}",
            decryption_key=f"cc_kbc::{kbs.url}",
            keyprovider_config=config,
        )

    async with provider("--kbs", kbs.url, "--aa", agent) as program:
        config.write_bytes(ocicrypt.grpc_config(program.address))
        await tool.copy(
            f"oci:{tmp_path}/plain",
            remote,
            encryption_key=f"cc_kbc::{KEY.uri}",
            keyprovider_config=config,
        )
        copied = await pull("good")
        assert copied.image is not None
        assert len(copied.image.layers) == 9
        assert await kbs.requests("POST", "/kbs/v0/auth") == 1
        token = admin_jwt.mint(kbs.pem, now=dt.datetime.now(dt.UTC))
        async with KbsAdmin(kbs.url, token=token) as admin:
            await admin.delete_resource(KEY)
        before = await kbs.requests("GET", "/kbs/v0/resource")
        with pytest.raises(NotFoundError, match=rf"layer sha256:\w+: .*{KEY.uri}"):
            await pull("gone")
        assert await kbs.requests("GET", "/kbs/v0/resource") - before <= 9


def with_packets(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Rewrite the key packets of a layout's image, as whoever stores it could."""
    index = json.loads((folder / "index.json").read_bytes())
    entry = index["manifests"][0]
    manifest = json.loads((folder / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    name = "org.opencontainers.image.enc.keys.provider.attestation-agent"
    for layer in manifest["layers"]:
        packet = json.loads(base64.b64decode(layer["annotations"][name]))
        layer["annotations"][name] = base64.b64encode(encode(change(packet))).decode()
    data = encode(manifest)
    entry.update(digest=oci.digest_of(data), size=len(data))
    (folder / "blobs" / entry["digest"].replace(":", "/")).write_bytes(data)
    (folder / "index.json").write_bytes(encode(index))


def as_v2(packet: dict[str, Any]) -> dict[str, Any]:
    more = {"version": "0.1.0", "provider": "kbs", "provider_settings": {}, "annotations": {}}
    return {**packet, **more}


def as_ctr(packet: dict[str, Any]) -> dict[str, Any]:
    iv, data = base64.b64decode(packet["iv"]), base64.b64decode(packet["wrapped_data"])
    return {**packet, "wrap_type": "A256CTR", "iv": iv + b"\0\0\0\2", "wrapped_data": data[:-16]}


async def test_skopeo_with_packets_of_both_versions_and_keys_of_files(
    tool: Skopeo, tmp_path: Path
) -> None:
    layers = [tar(name, os.urandom(2**12)) for name in "ab"]
    write(tmp_path / "plain", [gzipped(layer) for layer in layers])
    keys, config = tmp_path / "keys.json", tmp_path / "ocicrypt.json"
    keys.write_bytes(encode({str(KEY): kek.generate()}))
    env = {
        "AA_KBC_PARAMS": "offline_fs_kbc::null",
        "OFFLINE_FS_KBC_EXTRA_FILE_PATH": f"{tmp_path}/absent.json,{keys}",
    }

    async def pull(name: str) -> None:
        copied = await tool.copy(
            f"oci:{tmp_path}/enc",
            f"oci:{tmp_path}/{name}",
            decryption_key="offline_fs_kbc::null",
            keyprovider_config=config,
        )
        assert copied.image is not None
        assert [each.diff_id for each in copied.image.layers] == [
            oci.digest_of(layer) for layer in layers
        ]

    flags = ("--socket", "127.0.0.1:0")
    async with running("coco-keyprovider", *flags, env=env) as program:
        config.write_bytes(ocicrypt.grpc_config(program.address))
        await tool.copy(
            f"oci:{tmp_path}/plain",
            f"oci:{tmp_path}/enc",
            encryption_key=f"keyid=kbs.example/{KEY}",
            keyprovider_config=config,
        )
        await pull("v1")
        with_packets(tmp_path / "enc", as_v2)
        await pull("v2")
        with_packets(tmp_path / "enc", as_ctr)
        with pytest.raises(CocosError, match="A256CTR, which shows no change"):
            await pull("ctr")
    async with running("coco-keyprovider", *flags, "--insecure-ctr", env=env) as program:
        config.write_bytes(ocicrypt.grpc_config(program.address))
        await pull("insecure-ctr")
