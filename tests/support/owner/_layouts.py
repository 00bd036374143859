# SPDX-License-Identifier: Apache-2.0
"""OCI layouts in every state, good and bad, written byte by byte."""

import gzip
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cocos.wire import oci
from cocos.wire.json import encode


def tar(name: str, content: bytes) -> bytes:
    """Return a tar stream with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class Layer:
    """One layer to be written; every member can be made wrong."""

    plain: bytes
    blob: bytes
    media_type: str = oci.LAYER_GZIP
    diff_id: str = ""
    digest: str = ""
    size: int = -1
    annotations: dict[str, str] | None = None


def gzipped(plain: bytes) -> Layer:
    return Layer(plain, gzip.compress(plain, mtime=0))


def uncompressed(plain: bytes) -> Layer:
    return Layer(plain, plain, oci.LAYER_TAR)


def write(folder: Path, layers: Sequence[Layer]) -> oci.Digest:
    """Write a layout with one image; return the digest of its config."""
    config = encode(
        oci.ImageConfig(
            oci.RootFs(tuple(layer.diff_id or oci.digest_of(layer.plain) for layer in layers)),
            "amd64",
            "linux",
        )
    )
    manifest = encode(
        oci.Manifest(
            schema_version=2,
            config=oci.Descriptor(oci.CONFIG, oci.digest_of(config), len(config)),
            layers=tuple(
                oci.Descriptor(
                    layer.media_type,
                    layer.digest or oci.digest_of(layer.blob),
                    len(layer.blob) if layer.size < 0 else layer.size,
                    layer.annotations,
                )
                for layer in layers
            ),
        )
    )
    blobs = {oci.digest_of(data): data for data in (config, manifest)}
    blobs |= {
        oci.Digest(layer.digest) if layer.digest else oci.digest_of(layer.blob): layer.blob
        for layer in layers
    }
    entry = oci.Descriptor(oci.MANIFEST, oci.digest_of(manifest), len(manifest))
    for path, data in oci.layout_files(blobs, entry).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return oci.digest_of(config)


def blob_path(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
