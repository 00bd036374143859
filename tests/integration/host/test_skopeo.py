# SPDX-License-Identifier: Apache-2.0
"""Real Skopeo, real registry, real key provider: what must work, and what must be caught."""

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from _layouts import blob_path, gzipped, tar, uncompressed, write

from cocos.crypto import kek
from cocos.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    ProtocolError,
    ToolMissingError,
    UnreachableError,
    UsageError,
)
from cocos.host.images import layout, skopeo
from cocos.host.images.skopeo import Skopeo
from cocos.host.key_folder import KeyFolder
from cocos.keyprovider.server import service
from cocos.keyprovider.service import KeyProvider
from cocos.transport.rpc import serve
from cocos.wire import oci, ocicrypt
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/algo-key")
PARAMETER = f"cc_kbc::{KEY.uri}"
LAYERS = [tar("a", b"first" * 999), tar("b", os.urandom(2**18)), tar("c", b"")]


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "keys")
    folder.store(KEY, kek.generate())
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """A plain image of three layers, one of them uncompressed."""
    write(tmp_path / "plain", [gzipped(LAYERS[0]), uncompressed(LAYERS[1]), gzipped(LAYERS[2])])
    return f"oci:{tmp_path}/plain"


@contextlib.asynccontextmanager
async def provider(folder: Path, service_of: KeyProvider) -> AsyncIterator[Path]:
    """Serve a key provider; yields ocicrypt's configuration."""
    config = folder / "ocicrypt.json"
    async with serve("127.0.0.1:0", [service(service_of)]) as address:
        config.write_bytes(ocicrypt.grpc_config(address))
        yield config


@pytest.fixture
async def config(tmp_path: Path, keys: KeyFolder) -> AsyncIterator[Path]:
    async with provider(tmp_path, KeyProvider(folder=keys)) as path:
        yield path


@pytest.fixture
async def encrypted(tool: Skopeo, plain: str, config: Path, tmp_path: Path) -> Path:
    """A layout of the image, encrypted."""
    target = tmp_path / "encrypted"
    await tool.copy(plain, f"oci:{target}", encryption_key=PARAMETER, keyprovider_config=config)
    return target


async def decrypt(tool: Skopeo, source: object, target: Path, config: Path) -> skopeo.Copied:
    name = f"oci:{source}" if isinstance(source, Path) else str(source)
    return await tool.copy(
        name, f"oci:{target}", decryption_key="cc_kbc::null", keyprovider_config=config
    )


def edit(image: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the manifest of a layout, digests consistent."""
    digest, _ = layout.read_manifest(image)
    manifest = json.loads(blob_path(image, digest).read_bytes())
    change(manifest)
    data = encode(manifest)
    blob_path(image, oci.digest_of(data)).write_bytes(data)
    entry = oci.Descriptor(oci.MANIFEST, oci.digest_of(data), len(data))
    (image / "index.json").write_bytes(encode(oci.Index(2, (entry,))))


@pytest.mark.parametrize("form", ["grpc", "unix", "command"])
async def test_round_trip_through_a_registry(
    tool: Skopeo, plain: str, registry: str, tmp_path: Path, form: str, *, keys: KeyFolder
) -> None:
    config = tmp_path / "ocicrypt.json"
    async with contextlib.AsyncExitStack() as stack:
        if form == "command":
            module = [sys.executable, "-m", "cocos.cli.guest.coco_keyprovider"]
            config.write_bytes(
                ocicrypt.command_config([*module, "--keys", str(keys.folder), "once"])
            )
        else:
            where = "127.0.0.1:0" if form == "grpc" else f"unix:{tmp_path}/kp.sock"
            own = service(KeyProvider(folder=keys))
            address = await stack.enter_async_context(serve(where, [own]))
            config.write_bytes(ocicrypt.grpc_config(address))
        seen: list[tuple[int, int]] = []
        remote = f"docker://{registry}/algo:v1"
        up = await tool.copy(
            plain,
            remote,
            encryption_key=PARAMETER,
            keyprovider_config=config,
            on_progress=lambda done, total: seen.append((done, total)),
        )
        assert all(layer.encrypted for layer in up.manifest.layers)
        source = await tool.resolve(remote)
        assert source.digest == up.digest
        skopeo.require_key(source, ResourceUri.parse(KEY.uri))
        down = await decrypt(tool, source.reference, tmp_path / "decrypted", config)
    assert down.image is not None
    assert [layer.diff_id for layer in down.image.layers] == [oci.digest_of(x) for x in LAYERS]
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0
    assert (tmp_path / "decrypted").stat().st_mode & 0o777 == 0o700


async def test_sources_said_wrong(
    tool: Skopeo, plain: str, encrypted: Path, config: Path, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match=r"layer 1 \(sha256:\w+\) of .* is not encrypted"):
        await decrypt(tool, plain, tmp_path / "out", config)
    with pytest.raises(IntegrityError, match="is encrypted already"):
        await tool.copy(
            f"oci:{encrypted}",
            f"oci:{tmp_path}/out",
            encryption_key=PARAMETER,
            keyprovider_config=config,
        )
    # Without a key Skopeo copies it as it is and is content.
    await tool.copy(f"oci:{encrypted}", f"oci:{tmp_path}/same")
    with pytest.raises(IntegrityError, match=r"layer 1 .* is still encrypted"):
        layout.verify(tmp_path / "same")
    with pytest.raises(IntegrityError, match=f"to the key {KEY.uri}, not to kbs:///a/b/c"):
        skopeo.require_key(
            await tool.resolve(f"oci:{encrypted}"), ResourceUri.parse("kbs:///a/b/c")
        )


async def test_decrypts_into_a_folder_only(tool: Skopeo, encrypted: Path, config: Path) -> None:
    with pytest.raises(UsageError, match="to a folder only"):
        await tool.copy(
            f"oci:{encrypted}",
            "docker://localhost:1/x",
            decryption_key="cc_kbc::null",
            keyprovider_config=config,
        )


@pytest.mark.parametrize("how", ["digest left", "digest made right", "the same, at a registry"])
async def test_tampered_layer(
    tool: Skopeo, encrypted: Path, tmp_path: Path, *, registry: str, config: Path, how: str
) -> None:
    _, manifest = layout.read_manifest(encrypted)
    old = manifest.layers[1].digest
    blob = bytearray(blob_path(encrypted, old).read_bytes())
    blob[1000] ^= 1
    if how != "digest left":
        new = oci.digest_of(bytes(blob))
        blob_path(encrypted, new).write_bytes(blob)
        edit(encrypted, lambda manifest: manifest["layers"][1].update(digest=new))
        named = new
    else:
        blob_path(encrypted, old).write_bytes(blob)
        named = oci.parse_digest(old)
    source = f"oci:{encrypted}"
    if how == "the same, at a registry":  # where Skopeo copies several layers at once
        source = f"docker://{registry}/bad:v1"
        await tool.copy(f"oci:{encrypted}", source)
    with pytest.raises(IntegrityError) as caught:
        await decrypt(tool, source, tmp_path / "out", config)
    assert named in caught.value.message


async def test_annotations_swapped_between_layers(
    tool: Skopeo, encrypted: Path, config: Path, tmp_path: Path
) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        first, second = manifest["layers"][:2]
        first["annotations"], second["annotations"] = second["annotations"], first["annotations"]

    edit(encrypted, swap)
    with pytest.raises(IntegrityError, match="does not match its authentication code"):
        await decrypt(tool, encrypted, tmp_path / "out", config)


def change_packet(image: Path, **members: str) -> None:
    name = "org.opencontainers.image.enc.keys.provider.attestation-agent"

    def change(manifest: dict[str, Any]) -> None:
        annotations = manifest["layers"][0]["annotations"]
        packet = {**json.loads(base64.b64decode(annotations[name])), **members}
        annotations[name] = base64.b64encode(encode(packet)).decode()

    edit(image, change)


async def test_tampered_annotation(
    tool: Skopeo, encrypted: Path, keys: KeyFolder, config: Path, tmp_path: Path
) -> None:
    other = kek.wrap(kek.generate(), b"not the options")
    change_packet(encrypted, wrapped_data=base64.b64encode(other.data).decode())
    with pytest.raises(IntegrityError, match=f"does not open with the key {KEY.uri}"):
        await decrypt(tool, encrypted, tmp_path / "out", config)


async def test_wrong_key_at_the_provider(tool: Skopeo, encrypted: Path, tmp_path: Path) -> None:
    others = KeyFolder(tmp_path / "other-keys")
    others.store(KEY, kek.generate())
    async with provider(tmp_path, KeyProvider(folder=others)) as config:
        with pytest.raises(IntegrityError, match=r"layer sha256:\w+: .*another key"):
            await decrypt(tool, encrypted, tmp_path / "out", config)


async def test_key_of_a_wrong_length(
    tool: Skopeo, encrypted: Path, keys: KeyFolder, config: Path, tmp_path: Path
) -> None:
    keys.path(KEY).write_bytes(b"x" * 31)
    with pytest.raises(Exception, match=f"the key {KEY.uri} in .* is 31 bytes long, not 32"):
        await decrypt(tool, encrypted, tmp_path / "out", config)


class Liar(KeyProvider):
    """Unwraps honestly, then changes one member of the private options."""

    def __init__(self, folder: KeyFolder, change: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(folder=folder)
        self._change = change

    async def unwrap(self, document: bytes) -> bytes:
        options = json.loads(ocicrypt.parse_unwrap_output(await super().unwrap(document)))
        self._change(options)
        return ocicrypt.unwrap_output(encode(options))


async def test_wrong_nonce_is_caught_though_skopeo_is_content(
    tool: Skopeo, encrypted: Path, keys: KeyFolder, tmp_path: Path
) -> None:
    def lie(options: dict[str, Any]) -> None:
        options["cipheroptions"]["nonce"] = base64.b64encode(os.urandom(16)).decode()

    async with provider(tmp_path, Liar(keys, lie)) as config:
        with pytest.raises(IntegrityError, match=r"layer 1 \(sha256:"):
            await decrypt(tool, encrypted, tmp_path / "out", config)
        # The attack is real: Skopeo alone ends well and leaves garbage.
        words = ["--decryption-key", "provider:attestation-agent", "--policy"]
        policy = tmp_path / "policy.json"
        policy.write_bytes(skopeo.trust_policy())
        child = await asyncio.create_subprocess_exec(
            *tool.argv,
            "copy",
            *words,
            policy,
            f"oci:{encrypted}",
            f"oci:{tmp_path}/garbage",
            env={**os.environ, "OCICRYPT_KEYPROVIDER_CONFIG": str(config)},
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await child.wait() == 0


async def test_wrong_layer_key(
    tool: Skopeo, encrypted: Path, keys: KeyFolder, tmp_path: Path
) -> None:
    def lie(options: dict[str, Any]) -> None:
        options["symkey"] = base64.b64encode(os.urandom(32)).decode()

    async with provider(tmp_path, Liar(keys, lie)) as config:
        with pytest.raises(IntegrityError, match="does not match its authentication code"):
            await decrypt(tool, encrypted, tmp_path / "out", config)


async def test_config_replaced_by_one_with_other_diff_ids(
    tool: Skopeo, encrypted: Path, config: Path, tmp_path: Path
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        path = blob_path(encrypted, manifest["config"]["digest"])
        document = json.loads(path.read_bytes())
        document["rootfs"]["diff_ids"][2] = oci.digest_of(b"something else")
        data = encode(document)
        blob_path(encrypted, oci.digest_of(data)).write_bytes(data)
        manifest["config"].update(digest=oci.digest_of(data), size=len(data))

    edit(encrypted, change)
    with pytest.raises(IntegrityError, match=r"layer 3 .* does not hold what the image's config"):
        await decrypt(tool, encrypted, tmp_path / "out", config)


async def test_provider_down(tool: Skopeo, plain: str, encrypted: Path, tmp_path: Path) -> None:
    config = tmp_path / "down.json"
    config.write_bytes(ocicrypt.grpc_config("127.0.0.1:1"))
    with pytest.raises(UnreachableError, match=r"key provider at 127\.0\.0\.1:1 does not answer"):
        await decrypt(tool, encrypted, tmp_path / "out", config)
    with pytest.raises(UnreachableError, match=r"key provider at 127\.0\.0\.1:1 does not answer"):
        await tool.copy(
            plain, f"oci:{tmp_path}/out2", encryption_key=PARAMETER, keyprovider_config=config
        )


async def test_no_provider(tool: Skopeo, encrypted: Path, tmp_path: Path) -> None:
    config = tmp_path / "none.json"
    config.write_text('{"key-providers": {}}')
    with pytest.raises(ConfigError, match="no key provider named attestation-agent"):
        await decrypt(tool, encrypted, tmp_path / "out", config)


async def test_registry_down_or_empty(tool: Skopeo, registry: str) -> None:
    with pytest.raises(UnreachableError, match="the registry localhost:1 does not answer"):
        await tool.resolve("docker://localhost:1/algo:v1")
    with pytest.raises(NotFoundError, match=f"{registry}/algo"):
        await tool.resolve(f"docker://{registry}/algo:v1")


async def test_plain_http_needs_loopback(tool: Skopeo, registry: str, tmp_path: Path) -> None:
    """Only the names of loopback are excepted; another name of the same host is not."""
    strict = tmp_path / "registries.conf"
    strict.write_text(skopeo.registries_conf(insecure=[]))
    with pytest.raises(ProtocolError, match=f"the registry {registry} speaks plain http"):
        await Skopeo(tool.argv, registries=strict).resolve(f"docker://{registry}/algo:v1")


async def test_wrapper_for_peoples_path(
    tool: Skopeo, plain: str, registry: str, tmp_path: Path
) -> None:
    binaries = tool.install_wrapper(tmp_path / "env")
    child = await asyncio.create_subprocess_exec(
        binaries / "skopeo", "copy", "--quiet", plain, f"docker://{registry}/plain:v1"
    )
    assert await child.wait() == 0
    source = await tool.resolve(f"docker://{registry}/plain:v1")
    skopeo.require_plain(source)


OLD = "#!/bin/sh\necho 'FATA[0000] Invalid encryption keys: Provided protocol not recognized' >&2\n"


async def test_old_skopeo_on_path_is_passed_over(
    tool: Skopeo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "skopeo"
    old.write_text(f"{OLD}exit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    try:
        found = await skopeo.find()
    except ToolMissingError as error:
        assert "not recognized" in error.message  # noqa: PT017 - both outcomes are right
    else:
        assert str(old) not in found.argv
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ToolMissingError, match=r"no Skopeo with key providers.*not recognized"):
        await skopeo.find()


async def test_install_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="mmdebstrap is not installed") as caught:
        await skopeo.install()
    assert "apt-get install mmdebstrap" in (caught.value.hint or "")
    left = [path.name for path in (tmp_path / "cocos" / "tools").iterdir()]
    assert left == ["lock"]


async def test_what_a_digest_names_is_checked_whatever_skopeo_says(tmp_path: Path) -> None:
    """What is measured follows from these two documents; a Skopeo that looked away gave others."""
    (tmp_path / "skopeo").write_text(f"#!/bin/sh\nprintf %s '{{}}' | tee {tmp_path}/asked\n")
    (tmp_path / "skopeo").chmod(0o755)
    careless = Skopeo((str(tmp_path / "skopeo"),))
    digest = oci.digest_of(b"[]")
    reference = oci.Reference.parse(f"docker://localhost:1/a@{digest}")
    with pytest.raises(IntegrityError, match=f"something else than .*{digest}"):
        await careless.resolve(reference)
    manifest = oci.Manifest(2, oci.Descriptor(oci.CONFIG, digest, 2), ())
    with pytest.raises(IntegrityError, match=f"it is not {digest}"):
        await careless.config(skopeo.Source(reference, digest, manifest))
    assert (tmp_path / "asked").read_text() == "{}", "it was asked"
