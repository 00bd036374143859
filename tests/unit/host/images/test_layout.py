# SPDX-License-Identifier: Apache-2.0
import gzip
import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from _layouts import Layer, blob_path, gzipped, tar, uncompressed, write

from cocos.errors import CocosError, FormatError, IntegrityError, NotFoundError, TooLargeError
from cocos.host.images import layout
from cocos.wire import oci
from cocos.wire.json import encode

FIRST, SECOND = tar("a", b"one" * 1000), tar("b", os.urandom(3 * 2**20))


def test_good_image_is_verified_down_to_the_plaintext(tmp_path: Path) -> None:
    config = write(tmp_path, [gzipped(FIRST), uncompressed(SECOND)])
    seen: list[int] = []
    image = layout.verify(tmp_path, config_digest=config, on_bytes=seen.append)
    assert image.config_digest == config
    assert [layer.diff_id for layer in image.layers] == [
        oci.digest_of(FIRST),
        oci.digest_of(SECOND),
    ]
    assert image.layers[1].path.read_bytes() == SECOND
    assert image.layers[0].plain_bytes == len(FIRST)
    assert sum(seen) == len(gzip.compress(FIRST, mtime=0)) + len(SECOND)


def test_gzip_of_several_members(tmp_path: Path) -> None:
    blob = gzip.compress(SECOND[:1000]) + gzip.compress(b"") + gzip.compress(SECOND[1000:])
    write(tmp_path, [Layer(SECOND, blob)])
    assert layout.verify(tmp_path).layers[0].plain_bytes == len(SECOND)


class Counted:
    """Adds up what decompressors are given, and what they give back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = 0
        make = zlib.decompressobj
        counted = self

        class One:
            def __init__(self, wbits: int) -> None:
                self._real = make(wbits)

            def __getattr__(self, name: str) -> object:
                return getattr(self._real, name)

            def decompress(self, data: bytes, limit: int) -> bytes:
                counted.given += len(data)
                return self._real.decompress(data, limit)

        monkeypatch.setattr(zlib, "decompressobj", One)


def test_many_small_members_cost_what_they_are_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stores a layer chooses its members: a megabyte of empty ones took seconds."""
    given = []
    for count in (10_000, 40_000):
        blob = gzip.compress(FIRST) + gzip.compress(b"") * count
        write(tmp_path / f"{count}", [Layer(FIRST, blob)])
        with monkeypatch.context() as patch:
            counted = Counted(patch)
            layout.verify(tmp_path / f"{count}")
            given.append(counted.given / len(blob))
    assert given[1] < 2 * given[0], "twice the length, twice the work"


def test_what_an_unfinished_layout_unpacks_to_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [gzipped(FIRST), gzipped(SECOND)])
    assert {oci.digest_of(FIRST), oci.digest_of(SECOND)} <= layout.plaintexts(tmp_path)
    monkeypatch.setattr(layout, "PLAINTEXT_BYTES", 2 * len(FIRST))
    assert oci.digest_of(SECOND) not in layout.plaintexts(tmp_path)


def test_what_ends_too_early_unpacks_to_nothing(tmp_path: Path) -> None:
    write(tmp_path, [Layer(FIRST, gzip.compress(FIRST)[:-8])])
    assert oci.digest_of(FIRST) not in layout.plaintexts(tmp_path)


GOOD = gzipped(FIRST)
BAD_LAYERS: dict[str, tuple[Layer, type[CocosError], str]] = {
    "other plaintext": (
        replace(GOOD, diff_id=oci.digest_of(SECOND)),
        IntegrityError,
        "diff_id is",
    ),
    "changed blob": (
        replace(GOOD, digest=oci.digest_of(b"x")),
        IntegrityError,
        "was changed: its digest is",
    ),
    "other size": (replace(GOOD, size=5), IntegrityError, "bytes long, not 5"),
    "still encrypted": (
        replace(GOOD, media_type=oci.LAYER_GZIP + oci.ENCRYPTED),
        IntegrityError,
        "still encrypted",
    ),
    "garbage where gzip should be": (
        Layer(FIRST, os.urandom(2000)),
        IntegrityError,
        "decrypted wrongly or changed",
    ),
    "truncated gzip": (Layer(FIRST, GOOD.blob[:-9]), IntegrityError, "ends too early"),
    "bytes after gzip": (Layer(FIRST, GOOD.blob + b"tail"), IntegrityError, "is damaged"),
    "zeros after gzip": (Layer(FIRST, GOOD.blob + bytes(8)), IntegrityError, "is damaged"),
    "zlib without gzip's header": (
        Layer(FIRST, zlib.compress(FIRST)),
        IntegrityError,
        "decrypted wrongly or changed",
    ),
    "empty blob": (Layer(FIRST, b""), IntegrityError, "ends too early"),
    "wrong check sum": (
        Layer(FIRST, GOOD.blob[:-8] + zlib.crc32(b"").to_bytes(4, "little") + GOOD.blob[-4:]),
        IntegrityError,
        "is damaged",
    ),
    "plain type, gzip content": (
        replace(GOOD, media_type=oci.LAYER_TAR),
        IntegrityError,
        "does not hold what the image's config says",
    ),
    "zstd": (replace(GOOD, media_type=oci.LAYER_TAR + "+zstd"), FormatError, "unsupported type"),
}


@pytest.mark.parametrize("name", BAD_LAYERS)
def test_bad_layer_is_named(tmp_path: Path, name: str) -> None:
    layer, kind, words = BAD_LAYERS[name]
    write(tmp_path, [uncompressed(SECOND), layer])
    with pytest.raises(kind, match=words) as caught:
        layout.verify(tmp_path)
    assert "layer 2 (sha256:" in caught.value.message


def test_missing_blob(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    blob_path(tmp_path, oci.digest_of(GOOD.blob)).unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        layout.verify(tmp_path)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_blob_that_is_no_regular_file(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "image", [GOOD])
    path = blob_path(tmp_path / "image", oci.digest_of(GOOD.blob))
    path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(IntegrityError, match="is missing" if kind == "link" else "not a regular"):
        layout.verify(tmp_path / "image")
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_document_that_is_no_regular_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, [GOOD])
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(IntegrityError, match="not a regular file"):
        layout.verify(tmp_path)


def test_documents_match_their_descriptors_in_digest_and_size(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    config = layout.read_manifest(tmp_path)[1].config
    data = layout.read_document(tmp_path, config, "it")
    for size in (config.size - 1, config.size + 1):
        wrong = oci.Descriptor(config.media_type, config.digest, size)
        with pytest.raises(IntegrityError, match="it was changed"):
            layout.read_document(tmp_path, wrong, "it")
    blob_path(tmp_path, config.digest).write_bytes(data.replace(b"linux", b"Linux"))
    with pytest.raises(IntegrityError, match="it was changed"):
        layout.read_document(tmp_path, config, "it")


def test_documents_are_as_long_as_registries_have_them(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    for size, taken in ((4 * 2**20, True), (4 * 2**20 + 1, False)):
        data = bytes(size)
        descriptor = oci.Descriptor(oci.CONFIG, oci.digest_of(data), size)
        blob_path(tmp_path, descriptor.digest).write_bytes(data)
        if taken:
            assert layout.read_document(tmp_path, descriptor, "it") == data
        else:
            with pytest.raises(TooLargeError, match="it is larger than 4194304 bytes"):
                layout.read_document(tmp_path, descriptor, "it")


def test_layout_of_another_version(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(FormatError, match=r"version '2\.0\.0'"):
        layout.verify(tmp_path)


def test_index_instead_of_an_image(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    inner = (tmp_path / "index.json").read_bytes()
    blob_path(tmp_path, oci.digest_of(inner)).write_bytes(inner)
    entry = oci.Descriptor(oci.INDEX, oci.digest_of(inner), len(inner))
    (tmp_path / "index.json").write_bytes(encode(oci.Index(2, (entry,))))
    with pytest.raises(FormatError, match="an index of images, not one image"):
        layout.verify(tmp_path)


def test_an_image_by_its_tag(tmp_path: Path) -> None:
    entries = []
    for tag, layer in (("v1", GOOD), ("v2", uncompressed(SECOND))):
        write(tmp_path, [layer])
        digest, _ = layout.read_manifest(tmp_path)
        size = blob_path(tmp_path, digest).stat().st_size
        entries.append(oci.Descriptor(oci.MANIFEST, digest, size, {oci.REF_NAME: tag}))
    (tmp_path / "index.json").write_bytes(encode(oci.Index(2, tuple(entries))))
    for tag, plain in (("v1", FIRST), ("v2", SECOND)):
        (found,) = layout.verify(tmp_path, tag=tag).layers
        assert found.diff_id == oci.digest_of(plain)
    with pytest.raises(NotFoundError):
        layout.verify(tmp_path, tag="v3")
    # Who names no tag means the only image, whatever that is called.
    with pytest.raises(FormatError, match="holds 2 images"):
        layout.verify(tmp_path)
    (tmp_path / "index.json").write_bytes(encode(oci.Index(2, (entries[1],))))
    assert layout.verify(tmp_path).manifest_digest == entries[1].digest


@pytest.mark.parametrize("part", ["manifest", "config"])
def test_changed_document(tmp_path: Path, part: str) -> None:
    config = write(tmp_path, [GOOD])
    manifest, _ = layout.read_manifest(tmp_path)
    path = blob_path(tmp_path, config if part == "config" else manifest)
    path.write_bytes(path.read_bytes().replace(b'"schemaVersion":2', b'"schemaVersion":3') + b" ")
    with pytest.raises(IntegrityError, match=f"the image {part} was changed"):
        layout.verify(tmp_path)


def test_config_that_was_not_demanded(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    with pytest.raises(IntegrityError, match="as demanded"):
        layout.verify(tmp_path, config_digest=oci.digest_of(b"other"))


def test_layer_without_diff_id(tmp_path: Path) -> None:
    write(tmp_path, [GOOD, uncompressed(SECOND)])
    _, manifest = layout.read_manifest(tmp_path)
    write(tmp_path, [GOOD])
    index = tmp_path / "index.json"
    old = oci.parse_manifest(blob_path(tmp_path, layout.read_manifest(tmp_path)[0]).read_bytes())
    assert isinstance(old, oci.Manifest)
    mixed = encode(oci.Manifest(2, old.config, manifest.layers))
    blob_path(tmp_path, oci.digest_of(mixed)).write_bytes(mixed)
    entry = oci.Descriptor(oci.MANIFEST, oci.digest_of(mixed), len(mixed))
    index.write_bytes(encode(oci.Index(2, (entry,))))
    with pytest.raises(IntegrityError, match="2 layers but 1 diff_ids"):
        layout.verify(tmp_path)


def test_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    write(tmp_path, [gzipped(bytes(50 * 2**20))])
    with pytest.raises(TooLargeError):
        layout.verify(tmp_path, limit=2**20)


def test_the_limit_itself_is_within_it(tmp_path: Path) -> None:
    write(tmp_path, [gzipped(FIRST), uncompressed(SECOND)])
    size = len(FIRST) + len(SECOND)
    layout.verify(tmp_path, limit=size)
    with pytest.raises(TooLargeError):
        layout.verify(tmp_path, limit=size - 1)


def test_several_images_need_a_tag(tmp_path: Path) -> None:
    write(tmp_path, [GOOD])
    index = tmp_path / "index.json"
    text = index.read_text()
    entry = text[text.index("[") + 1 : text.rindex("]")]
    index.write_text(text.replace(entry, f"{entry},{entry}"))
    with pytest.raises(FormatError, match="holds 2 images"):
        layout.verify(tmp_path)
    with pytest.raises(NotFoundError, match="no image 'v1'"):
        layout.verify(tmp_path, tag="v1")


def test_no_layout(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        layout.verify(tmp_path / "nowhere")
