# SPDX-License-Identifier: Apache-2.0
"""Images as other tools make them: zstd, indexes without platforms, things that are no images."""

import asyncio
import json
from pathlib import Path

import pytest
from _layouts import gzipped, tar, uncompressed, write
from _lying_registry import LyingRegistry, lying_registry

from cocos.agent.fetch import check
from cocos.crypto import kek
from cocos.errors import FormatError, NotFoundError
from cocos.host import process
from cocos.host.images import layout
from cocos.host.images.skopeo import Skopeo, Source, require_image
from cocos.host.key_folder import KeyFolder
from cocos.keyprovider.server import service
from cocos.keyprovider.service import KeyProvider
from cocos.transport.rpc import serve
from cocos.wire import oci, ocicrypt
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.layers import PACKINGS, Packing, packing
from cocos.wire.manifest.parts import Source as Part

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/1")
LAYERS = [tar("a", b"first" * 999), tar("b", b"second" * 999)]
DIFF_IDS = [oci.digest_of(layer) for layer in LAYERS]


async def skopeo_copy(tool: Skopeo, *words: str, config: Path | None = None) -> None:
    """Copy as people do, without our checks."""
    env = {} if config is None else {"OCICRYPT_KEYPROVIDER_CONFIG": str(config)}
    await process.run([*tool.argv, "--insecure-policy", "copy", "-q", *words], env=env)


@pytest.fixture
async def zstd(tool: Skopeo, tmp_path: Path) -> str:
    write(tmp_path / "plain", [gzipped(LAYERS[0]), uncompressed(LAYERS[1])])
    target = f"oci:{tmp_path}/zstd"
    await skopeo_copy(tool, "--dest-compress-format", "zstd", f"oci:{tmp_path}/plain", target)
    found = await tool.resolve(target)
    assert {packing(layer) for layer in found.manifest.layers} == {Packing.ZSTD}
    return target


async def test_zstd_is_compressed_anew_by_who_encrypts_and_by_who_decrypts(
    tool: Skopeo, zstd: str, tmp_path: Path
) -> None:
    """The config, which manifests and policies name, stays what it was."""
    keys = KeyFolder(tmp_path / "keys")
    keys.store(KEY, kek.generate())
    config = tmp_path / "ocicrypt.json"
    before = (await tool.resolve(zstd)).manifest.config.digest
    parameter = f"keyid={KEY.uri}"
    async with serve("127.0.0.1:0", [service(KeyProvider(folder=keys))]) as address:
        config.write_bytes(ocicrypt.grpc_config(address))
        ours, theirs = f"oci:{tmp_path}/ours", f"oci:{tmp_path}/theirs"
        made = await tool.copy(zstd, ours, encryption_key=parameter, keyprovider_config=config)
        option = ("--encryption-key", f"provider:{ocicrypt.PROVIDER}:{parameter}")
        await skopeo_copy(tool, *option, zstd, theirs, config=config)
        assert {packing(layer) for layer in made.manifest.layers} == {Packing.GZIP}
        foreign = await tool.resolve(theirs)
        assert {packing(layer) for layer in foreign.manifest.layers} == {Packing.ZSTD}
        for source in (ours, theirs):
            part = Part("oci-image", source, encrypted=True, key=str(KEY), kbs="")
            check(await tool.resolve(source), part, b"")
            copied = await tool.copy(
                source,
                f"{source}.out:v1",
                decryption_key="cc_kbc::null",
                keyprovider_config=config,
            )
            assert copied.image is not None
            assert [layer.diff_id for layer in copied.image.layers] == DIFF_IDS
            assert copied.image.config_digest == before


async def test_plain_zstd_arrives_as_gzip(tool: Skopeo, zstd: str, tmp_path: Path) -> None:
    await tool.copy(zstd, f"oci:{tmp_path}/out:v1")
    image = await asyncio.to_thread(layout.verify, tmp_path / "out", tag="v1")
    assert [layer.diff_id for layer in image.layers] == DIFF_IDS


def test_each_type_that_is_let_in_can_be_unpacked_or_is_compressed_anew() -> None:
    """Who encrypts and who unpacks read one table."""
    assert set(PACKINGS.values()) - set(layout._DECOMPRESSORS) == {Packing.ZSTD}


def source_of(layer_type: str, **more: object) -> Source:
    blob = {"digest": oci.digest_of(b""), "size": 0}
    document = {
        "schemaVersion": 2,
        "config": {**blob, "mediaType": oci.CONFIG},
        "layers": [{**blob, "mediaType": layer_type}],
        **more,
    }
    manifest = oci.parse_manifest(encode(document))
    assert isinstance(manifest, oci.Manifest)
    return Source(oci.Reference.parse("docker://r.example/x"), oci.digest_of(b""), manifest)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar+bzip2",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.squashfs",
        "",
    ],
)
@pytest.mark.parametrize("encrypted", ["", oci.ENCRYPTED])
def test_other_layers_are_refused_before_a_key_is_made_or_asked_for(
    media_type: str, encrypted: str
) -> None:
    source = source_of(media_type + encrypted)
    with pytest.raises(FormatError, match=r"layer 1 .* unsupported type"):
        require_image(source)
    part = Part("oci-image", "docker://r.example/x", encrypted=bool(encrypted), key=str(KEY))
    with pytest.raises(FormatError, match=r"layer 1 .* unsupported type"):
        check(source, part, b"")


@pytest.mark.parametrize(
    ("config", "layer", "more", "name"),
    [
        ("application/vnd.oci.empty.v1+json", "text/csv", {}, "text/csv"),
        ("application/vnd.oci.empty.v1+json", "text/csv", {"artifactType": "a/b"}, "text/csv"),
        (
            "application/vnd.oci.empty.v1+json",
            "application/vnd.oci.empty.v1+json",
            {"artifactType": "application/vnd.example.sbom"},
            "application/vnd.example.sbom",
        ),
        ("application/vnd.cncf.helm.config.v1+json", "x/y", {}, "application/vnd.cncf.helm.config"),
        ("application/vnd.wasm.config.v0+json", "application/wasm", {}, "application/vnd.wasm"),
    ],
)
def test_an_artifact_is_named_as_what_it_is(
    config: str, layer: str, more: dict[str, object], name: str
) -> None:
    blob = {"digest": oci.digest_of(b""), "size": 0, "mediaType": config}
    source = source_of(layer, config=blob, **more)
    with pytest.raises(FormatError, match=f"an artifact of type {name}.*, not a container image"):
        require_image(source)


async def resolve_index(tool: Skopeo, registry: LyingRegistry, *platforms: object) -> int:
    """Return which image of an index with these platforms is taken."""
    digests = list(registry.manifests)
    entries = [
        {
            "mediaType": oci.MANIFEST,
            "digest": digest,
            "size": len(registry.manifests[digest][1]),
            **({} if platform is None else {"platform": platform}),
        }
        for digest, platform in zip(digests, platforms, strict=False)
    ]
    document = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}
    registry.put(json.dumps(document).encode(), oci.INDEX, "v1")
    return digests.index((await tool.resolve(registry.url)).digest)


async def test_an_image_of_an_index_is_chosen_as_skopeo_does(
    tool: Skopeo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    ours = {"architecture": "amd64", "os": "linux"}
    newer = {**ours, "variant": "v3"}
    other = {"architecture": "arm64", "os": "linux"}
    unknown = {"architecture": "unknown", "os": "unknown"}
    with lying_registry() as registry:
        for number in range(3):
            write(tmp_path / f"{number}", [gzipped(tar("a", b"%d" % number))])
            registry.add(tmp_path / f"{number}")
        for platforms, chosen in [
            ((None,), 0),
            ((None, None), 0),
            ((other, None, None), 1),
            ((unknown, None), 1),
            ((None, ours), 1),
            ((newer, other, ours), 2),
            ((unknown, ours), 1),
        ]:
            registry.manifests = dict(list(registry.manifests.items())[:3])
            assert await resolve_index(tool, registry, *platforms) == chosen, platforms
        registry.manifests = dict(list(registry.manifests.items())[:3])
        with pytest.raises(NotFoundError, match=r"no image for linux/amd64, only for linux/arm64"):
            await resolve_index(tool, registry, other)
