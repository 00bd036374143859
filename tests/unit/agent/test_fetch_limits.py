# SPDX-License-Identifier: Apache-2.0
"""Each thing that is asked of an image on its way to the agent, on its own."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from _layouts import gzipped, tar, uncompressed, write

from cocos.agent import fetch
from cocos.agent.fetch import TAG, Fetcher, Resolved, check
from cocos.crypto import kek
from cocos.errors import AccessDeniedError, FormatError, IntegrityError, StorageError
from cocos.host.images.skopeo import Skopeo
from cocos.host.images.skopeo import Source as Found
from cocos.host.key_folder import KeyFolder
from cocos.keyprovider.server import service
from cocos.keyprovider.service import KeyProvider
from cocos.transport.rpc import serve
from cocos.wire import oci, ocicrypt
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.manifest.parts import Source

URL = "docker://registry/image:1"
PLAIN = Source("oci-image", URL, encrypted=False, key="", kbs="")
SECRET = Source("oci-image", URL, encrypted=True, key="default/key/1", kbs="")
CONFIG = oci.digest_of(b"config")
PIN = bytes.fromhex(CONFIG.removeprefix("sha256:"))


def found(*media_types: str) -> Found:
    layers = tuple(oci.Descriptor(each, oci.digest_of(b"layer"), 5) for each in media_types)
    manifest = oci.Manifest(2, oci.Descriptor(oci.CONFIG, CONFIG, 6), layers)
    return Found(oci.Reference.parse(URL), oci.digest_of(b"manifest"), manifest)


CLEAR, SEALED = oci.LAYER_GZIP, oci.LAYER_GZIP + oci.ENCRYPTED


def test_the_hash_of_the_manifest() -> None:
    check(found(CLEAR), PLAIN, PIN)
    check(found(CLEAR), PLAIN, b"")
    other = bytes([PIN[0] ^ 1]) + PIN[1:]
    for pin in (other, bytes(32), PIN[:-1]):
        with pytest.raises(IntegrityError, match="another image than the manifest names"):
            check(found(CLEAR), PLAIN, pin)


def test_what_is_no_image_is_refused_before_any_key_is_asked_for() -> None:
    with pytest.raises(FormatError, match="unsupported type 'text/plain'"):
        check(found(CLEAR, "text/plain"), PLAIN, b"")
    with pytest.raises(FormatError, match=r"unsupported type 'text/plain\+encrypted'"):
        check(found("text/plain" + oci.ENCRYPTED), SECRET, b"")


@pytest.mark.parametrize("source", [PLAIN, SECRET])
def test_an_image_of_nothing(source: Source) -> None:
    with pytest.raises(FormatError, match="has no layers"):
        check(found(), source, b"")


@pytest.mark.parametrize("place", range(3))
def test_one_layer_that_is_not_as_the_manifest_says(place: int) -> None:
    kinds = [CLEAR] * 3
    check(found(*kinds), PLAIN, b"")
    kinds[place] = SEALED
    with pytest.raises(IntegrityError, match=rf"layer {place + 1} \(.* names no key for it"):
        check(found(*kinds), PLAIN, b"")


def test_a_layer_in_clear_where_the_manifest_says_encrypted() -> None:
    with pytest.raises(IntegrityError, match=r"layer 1 \(.* is not encrypted, but the manifest"):
        check(found(CLEAR), SECRET, b"")


def test_a_layer_that_is_encrypted_to_nobody() -> None:
    """Skopeo could be told by other annotations whom to ask."""
    with pytest.raises(IntegrityError, match=r"layer 1 \(.* is not encrypted to a key of a KBS"):
        check(found(SEALED), SECRET, b"")


@pytest.fixture
def plain(tmp_path: Path) -> Source:
    write(tmp_path / "image", [gzipped(tar("a", b"one")), uncompressed(tar("b", b"two"))])
    return Source("oci-image", f"oci:{tmp_path}/image", encrypted=False, key="", kbs="")


def fetcher(tool: Skopeo, *, local_sources: bool = True) -> Fetcher:
    return Fetcher(tool, Path("/none"), local_sources=local_sources)


async def resolved(tool: Skopeo, source: Source) -> Resolved:
    return await fetcher(tool).resolve(source, b"")


@pytest.mark.integration
async def test_an_image_as_it_is(tool: Skopeo, plain: Source, tmp_path: Path) -> None:
    wanted = await resolved(tool, plain)
    told: list[int] = []
    image = await fetcher(tool).fetch(wanted, tmp_path / "copy", told.append)
    assert image.config == wanted.config
    assert [layer.path.exists() for layer in image.layers] == [True, True]
    assert (tmp_path / "copy" / "index.json").exists()
    assert TAG == "latest"
    with pytest.raises(IntegrityError, match="another image than the manifest names"):
        await fetcher(tool).resolve(plain, bytes(32))


@pytest.mark.integration
async def test_folders_of_this_machine_only_where_they_are_allowed(
    tool: Skopeo, plain: Source
) -> None:
    for each in (fetcher(tool, local_sources=False), Fetcher(tool, Path("/none"))):
        with pytest.raises(AccessDeniedError, match="must come from a registry"):
            await each.resolve(plain, b"")


@pytest.mark.integration
async def test_an_encrypted_image_from_a_registry(
    tool: Skopeo, plain: Source, registry: str, tmp_path: Path
) -> None:
    keys, path = KeyFolder(tmp_path / "keys"), ResourcePath.parse("default/key/1")
    keys.store(path, kek.generate())
    config, url = tmp_path / "ocicrypt.json", f"docker://{registry}/image:1"
    async with serve("127.0.0.1:0", [service(KeyProvider(folder=keys))]) as address:
        config.write_bytes(ocicrypt.grpc_config(address))
        key = f"cc_kbc::{path.uri}"
        await tool.copy(plain.url, url, encryption_key=key, keyprovider_config=config)
        source = Source("oci-image", url, encrypted=True, key=str(path), kbs="")
        fetching = Fetcher(tool, config)
        wanted = await fetching.resolve(source, b"")
        told: list[int] = []
        image = await fetching.fetch(wanted, tmp_path / "copy", told.append)
    assert image.config == wanted.config
    names = [oci.digest_of(tar("a", b"one")), oci.digest_of(tar("b", b"two"))]
    assert [layer.diff_id for layer in image.layers] == names
    assert told[-1] == 100


@pytest.mark.integration
async def test_another_image_in_its_place(tool: Skopeo, plain: Source, tmp_path: Path) -> None:
    wanted = await resolved(tool, plain)
    shutil.rmtree(tmp_path / "image")
    write(tmp_path / "image", [gzipped(tar("a", b"evil"))])
    with pytest.raises((IntegrityError, FormatError)):
        await fetcher(tool).fetch(wanted, tmp_path / "copy", lambda _: None)


@pytest.mark.integration
async def test_a_config_that_was_exchanged(tool: Skopeo, plain: Source, tmp_path: Path) -> None:
    """What was measured is the config; other layers than it names must not run by it."""
    wanted = await resolved(tool, plain)
    names = wanted.config.rootfs.diff_ids

    def naming(diff_ids: Sequence[str]) -> Resolved:
        rootfs = msgspec.structs.replace(wanted.config.rootfs, diff_ids=tuple(diff_ids))
        config = msgspec.structs.replace(wanted.config, rootfs=rootfs)
        return dataclasses.replace(wanted, config=config)

    for number, diff_ids in enumerate((names[:1], names[::-1], (*names, names[0]), ())):
        folder = tmp_path / f"copy{number}"
        with pytest.raises(IntegrityError, match="it was exchanged"):
            await fetcher(tool).fetch(naming(diff_ids), folder, lambda _: None)


@pytest.mark.integration
@pytest.mark.parametrize(("missing", "fits"), [(0, True), (1, False)])
async def test_room_for_what_it_unpacks_to(
    tool: Skopeo,
    plain: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    missing: int,
    fits: bool,
) -> None:
    wanted = await resolved(tool, plain)
    needed = len(tar("a", b"one")) + len(tar("b", b"two"))
    usage = SimpleNamespace(free=needed - missing)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    fetching = fetcher(tool).fetch(wanted, tmp_path / "copy", lambda _: None)
    if fits:
        assert len((await fetching).layers) == 2
        return
    with pytest.raises(StorageError, match=f"unpacks to {needed} bytes, but .* {needed - 1} left"):
        await fetching


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([(0, 100)], []),
        ([(9, 100), (10, 100), (11, 100), (19, 100), (20, 100)], [10, 20]),
        ([(55, 100), (59, 100), (60, 100), (100, 100)], [50, 60, 100]),
        ([(0, 0)], [100]),
        ([(1, 3), (2, 3), (3, 3)], [30, 60, 100]),
        ([(299, 300), (300, 300)], [90, 100]),
    ],
)
def test_progress(steps: list[tuple[int, int]], told: list[int]) -> None:
    heard: list[int] = []
    progress = fetch._Progress(heard.append)
    for done, total in steps:
        progress(done, total)
    assert heard == told
