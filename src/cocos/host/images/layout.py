# SPDX-License-Identifier: Apache-2.0
"""Verification of an OCI layout: before a byte of it is used, all of it must hold together.

Skopeo proves less than it seems to: a decryption with a wrong nonce ends with exit code 0
and garbage. The chain checked here is index → manifest → config and layers, each by digest
and size, and config → plaintext of every layer, by diff_id.
"""

import contextlib
import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cocos.errors import FormatError, IntegrityError, NotFoundError, TooLargeError
from cocos.host.disk import disk_error
from cocos.wire import oci
from cocos.wire.json import decode
from cocos.wire.layers import Packing, packing

DOCUMENT_BYTES = 4 * 2**20  # limit of a manifest, an index and a config, as registries have it
PLAINTEXT_BYTES = 64 * 2**30
_CHUNK = 2**20
_PIECE = 2**13  # what a decompressor gets at once: it copies what is left with every member
_WORKERS = 4
_GZIP = 31  # zlib: a gzip stream with header and check sum

OnBytes = Callable[[int], None]
"""Gets the number of ciphertext or compressed bytes that were just checked."""


@dataclass(frozen=True, slots=True)
class VerifiedLayer:
    """A layer whose content matches its digest and the config's diff_id.

    Attributes:
        digest: Of the blob.
        diff_id: Of the uncompressed tar stream.
        media_type: One of the plain layer types.
        path: The blob.
        plain_bytes: Length of the tar stream.
    """

    digest: oci.Digest
    diff_id: oci.Digest
    media_type: str
    path: Path
    plain_bytes: int


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """An image of a layout, all of whose content was checked.

    Attributes:
        manifest_digest: Digest of the manifest.
        config_digest: Digest of the config; the same before and after encryption.
        config: The config.
        layers: Lowest first.
    """

    manifest_digest: oci.Digest
    config_digest: oci.Digest
    config: oci.ImageConfig
    layers: tuple[VerifiedLayer, ...]


def verify(
    layout: Path,
    *,
    tag: str | None = None,
    config_digest: oci.Digest | None = None,
    limit: int = PLAINTEXT_BYTES,
    on_bytes: OnBytes | None = None,
) -> VerifiedImage:
    """Check every byte of the one image of a layout, or of the one with a tag.

    Blocks; takes about the time of two SHA-256 passes. The caller keeps others from
    changing the folder afterwards.

    Args:
        layout: The folder.
        tag: Name of the image in the index.
        config_digest: The config must have this digest.
        limit: Most bytes of plaintext of all layers together.
        on_bytes: For progress; called from several threads.

    Raises:
        IntegrityError: names the part and what is wrong: a digest, a size, a diff_id, a layer
            that is still encrypted, damaged compression.
        FormatError: not a layout, or malformed documents.
        NotFoundError: no image of that tag.
        TooLargeError: more plaintext than ``limit``.
    """
    manifest_digest, manifest = read_manifest(layout, tag=tag)
    config_data = read_document(layout, manifest.config, "the image config")
    found = oci.digest_of(config_data)
    if config_digest is not None and found != config_digest:
        raise IntegrityError(f"the image's config is {found}, not {config_digest} as demanded")
    config = oci.parse_config(config_data)
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise IntegrityError(
            f"the image has {len(manifest.layers)} layers but {len(diff_ids)} diff_ids"
        )
    for number, layer in enumerate(manifest.layers):
        if layer.encrypted:
            raise IntegrityError(f"{_name(number, layer)} is still encrypted")
    budget = _Budget(limit, on_bytes)
    with ThreadPoolExecutor(_WORKERS) as pool:
        jobs = [
            pool.submit(_check_layer, layout, number, layer, diff_id, budget)
            for number, (layer, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True))
        ]
        try:
            layers = tuple(job.result() for job in jobs)
        finally:
            budget.stopped = True
            for job in jobs:
                job.cancel()
    return VerifiedImage(manifest_digest, found, config, layers)


def read_manifest(layout: Path, *, tag: str | None = None) -> tuple[oci.Digest, oci.Manifest]:
    """Return the manifest of the one image of a layout, or of the one with a tag.

    Raises:
        FormatError: not a layout, several images, or a nested index.
        IntegrityError: the manifest does not match its digest or size.
        NotFoundError: no image of that tag.
    """
    if not layout.is_dir():
        raise NotFoundError(f"there is no image in {layout}: it is not a folder")
    marker: oci.LayoutMarker = decode(
        _read(layout / "oci-layout", "oci-layout"), oci.LayoutMarker, "oci-layout"
    )
    if marker.image_layout_version != oci.LAYOUT_VERSION:
        raise FormatError(f"{layout} is a layout of version {marker.image_layout_version[:20]!r}")
    index: oci.Index = decode(_read(layout / "index.json", "the index"), oci.Index, "the index")
    entries = [
        entry
        for entry in index.manifests
        if tag is None or (entry.annotations or {}).get(oci.REF_NAME) == tag
    ]
    if not entries:
        raise NotFoundError(f"{layout} holds no image" + (f" {tag!r}" if tag else ""))
    if len(entries) > 1:
        raise FormatError(f"{layout} holds {len(entries)} images; say which by its tag")
    manifest = oci.parse_manifest(read_document(layout, entries[0], "the image manifest"))
    if not isinstance(manifest, oci.Manifest):
        raise FormatError(f"{layout} holds an index of images, not one image")
    return oci.parse_digest(entries[0].digest), manifest


def read_document(layout: Path, descriptor: oci.Descriptor, what: str) -> bytes:
    """Return a document of a layout, checked against its descriptor.

    Args:
        layout: The folder.
        descriptor: Names it.
        what: What it is, for the message.

    Raises:
        IntegrityError: missing, or another one.
        TooLargeError: more than :data:`DOCUMENT_BYTES`.
    """
    data = _read(_blob(layout, descriptor), what)
    if len(data) != descriptor.size or oci.digest_of(data) != descriptor.digest:
        raise IntegrityError(f"{what} was changed: it is not {descriptor.digest}")
    return data


def plaintexts(layout: Path) -> set[oci.Digest]:
    """Return the digests of what the blobs of an unfinished layout unpack to.

    A blob of more than :data:`PLAINTEXT_BYTES` is left out.
    """
    kinds: tuple[Callable[[], _Decompressor], ...] = (_Plain, _Gzip)
    found = set()
    for path in (layout / "blobs" / "sha256").glob("*"):
        for make in kinds:
            stream, plain, budget = make(), hashlib.sha256(), _Budget(PLAINTEXT_BYTES, None)
            with contextlib.suppress(zlib.error, IntegrityError, TooLargeError):
                with os.fdopen(_open(path, path.name), "rb", buffering=0) as file:
                    while chunk := file.read(_CHUNK):
                        for piece in stream.feed(chunk):
                            budget.take(len(piece))
                            plain.update(piece)
                stream.finish()
                found.add(oci.parse_digest(f"sha256:{plain.hexdigest()}"))
    return found


@dataclass(slots=True)
class _Budget:
    """What the threads share: bytes of plaintext that may still come (a race costs a chunk)."""

    left: int
    on_bytes: OnBytes | None
    stopped: bool = False

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0 or self.stopped:
            raise TooLargeError("the image's layers are larger than the limit when unpacked")


class _Decompressor(Protocol):
    def feed(self, chunk: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class _Plain:
    def feed(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def finish(self) -> None:
        pass


class _Gzip:
    """Gzip of one or more members, nothing else in between or behind; bounded memory."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        for at in range(0, len(chunk), _PIECE):
            piece = chunk[at : at + _PIECE]
            while piece:
                if self._member.eof:
                    self._member = zlib.decompressobj(_GZIP)
                yield self._member.decompress(piece, _CHUNK)
                piece = self._member.unconsumed_tail or self._member.unused_data

    def finish(self) -> None:
        if not self._member.eof:
            raise zlib.error("it ends too early")


_DECOMPRESSORS: dict[Packing | None, Callable[[], _Decompressor]] = {
    Packing.PLAIN: _Plain,
    Packing.GZIP: _Gzip,
}


def _check_layer(
    layout: Path,
    number: int,
    layer: oci.Descriptor,
    diff_id: str,
    budget: _Budget,
) -> VerifiedLayer:
    name = _name(number, layer)
    make = _DECOMPRESSORS.get(packing(layer))
    if make is None:
        raise FormatError(
            f"{name} has the unsupported type {layer.media_type[:100]!r}",
            hint="build or copy the image with gzip layers: --dest-compress-format gzip",
        )
    stream, compressed, plain, plain_bytes = make(), hashlib.sha256(), hashlib.sha256(), 0
    path = _blob(layout, layer)
    try:
        for chunk in _chunks(path, layer, name):
            compressed.update(chunk)
            for piece in stream.feed(chunk):
                budget.take(len(piece))
                plain.update(piece)
                plain_bytes += len(piece)
            if budget.on_bytes is not None:
                budget.on_bytes(len(chunk))
        stream.finish()
    except zlib.error as error:
        raise IntegrityError(
            f"{name} is damaged: {error}; it was decrypted wrongly or changed"
        ) from error
    if compressed.hexdigest() != layer.digest.removeprefix("sha256:"):
        raise IntegrityError(f"{name} was changed: its digest is sha256:{compressed.hexdigest()}")
    found = f"sha256:{plain.hexdigest()}"
    if found != diff_id:
        raise IntegrityError(
            f"{name} does not hold what the image's config says: its plaintext is {found}, the "
            f"diff_id is {diff_id}"
        )
    digest = oci.parse_digest(layer.digest)
    return VerifiedLayer(digest, oci.parse_digest(diff_id), layer.media_type, path, plain_bytes)


def _name(number: int, layer: oci.Descriptor) -> str:
    return f"layer {number + 1} ({layer.digest})"


def _blob(layout: Path, descriptor: oci.Descriptor) -> Path:
    return layout / "blobs" / "sha256" / descriptor.digest.removeprefix("sha256:")


def _read(path: Path, what: str) -> bytes:
    with os.fdopen(_open(path, what), "rb") as file:
        data = file.read(DOCUMENT_BYTES + 1)
    if len(data) > DOCUMENT_BYTES:
        raise TooLargeError(f"{what} is larger than {DOCUMENT_BYTES} bytes")
    return data


def _chunks(path: Path, layer: oci.Descriptor, name: str) -> Iterator[bytes]:
    with os.fdopen(_open(path, name), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size != layer.size:
            raise IntegrityError(f"{name} is {size} bytes long, not {layer.size}")
        while chunk := file.read(_CHUNK):
            yield chunk


def _open(path: Path, what: str) -> int:
    # No links, no devices, no pipes: a layout may come from somebody else.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise disk_error(error, f"{what} is missing: {path}", IntegrityError) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IntegrityError(f"{what} is not a regular file: {path}")
    return descriptor
