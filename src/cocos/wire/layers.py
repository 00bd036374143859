# SPDX-License-Identifier: Apache-2.0
"""Media types of images' parts: one table for who encrypts an image and for who unpacks it."""

import enum
from typing import Final

from cocos.wire import oci


class Packing(enum.StrEnum):
    """How a layer's tar stream is stored."""

    PLAIN = "tar"
    GZIP = "gzip"
    ZSTD = "zstd"
    """Neither our check nor Debian's umoci unpacks it: Skopeo compresses such layers anew."""


_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"

PACKINGS: Final = {
    oci.LAYER_TAR: Packing.PLAIN,
    oci.LAYER_GZIP: Packing.GZIP,
    oci.LAYER_TAR + "+zstd": Packing.ZSTD,
    _NONDISTRIBUTABLE: Packing.PLAIN,
    _NONDISTRIBUTABLE + "+gzip": Packing.GZIP,
    _NONDISTRIBUTABLE + "+zstd": Packing.ZSTD,
    _DOCKER: Packing.PLAIN,
    _DOCKER + ".gzip": Packing.GZIP,
}
"""Media type of a layer, without ``+encrypted``, → how it is stored. Skopeo reads these."""

_CONFIGS: Final = {
    oci.CONFIG,
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",  # of the first programs that wrote such manifests
}
_EMPTY: Final = "application/vnd.oci.empty.v1+json"


def packing(layer: oci.Descriptor) -> Packing | None:
    """Return how a layer is stored, encrypted or not; None for what is no layer of ours."""
    return PACKINGS.get(layer.media_type.removesuffix(oci.ENCRYPTED))


def artifact_type(manifest: oci.Manifest) -> str:
    """Return what a manifest holds that is no container image, or empty.

    Registries keep other things, too: charts, models, data sets as ORAS pushes them.
    """
    config = manifest.config.media_type
    if config in _CONFIGS:
        return ""
    if config != _EMPTY:
        return manifest.artifact_type or config
    kinds = [layer.media_type for layer in manifest.layers if layer.media_type != _EMPTY]
    return kinds[0] if len(set(kinds)) == 1 else manifest.artifact_type or config
