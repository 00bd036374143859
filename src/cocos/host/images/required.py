# SPDX-License-Identifier: Apache-2.0
"""What must hold of an image's manifest before anything is done with the image."""

from collections.abc import Iterator
from dataclasses import dataclass

from cocos.errors import FormatError, IntegrityError
from cocos.wire import layers, oci, ocicrypt
from cocos.wire.kbs.protocol import ResourceUri


@dataclass(frozen=True, slots=True)
class Source:
    """One image at a registry or in a layout, by what it holds.

    Attributes:
        reference: By digest where the transport can.
        digest: Of the manifest.
        manifest: The manifest.
    """

    reference: oci.Reference
    digest: oci.Digest
    manifest: oci.Manifest

    @property
    def layer_bytes(self) -> int:
        """Size of all layers as they are stored."""
        return sum(layer.size for layer in self.manifest.layers)

    def named_layers(self) -> Iterator[tuple[str, oci.Descriptor]]:
        """Yield every layer with its name for messages."""
        for number, layer in enumerate(self.manifest.layers, 1):
            yield f"layer {number} ({layer.digest}) of {self.reference}", layer


def require_image(source: Source) -> None:
    """Check that it is a container image, of layers that Skopeo reads.

    Raises:
        FormatError: it is something else, or has a layer of another type; names it.
    """
    artifact = layers.artifact_type(source.manifest)
    if artifact:
        raise FormatError(
            f"{source.reference} is an artifact of type {artifact[:100]}, not a container image",
            hint="put the files into an image: FROM scratch, and COPY file /",
        )
    for name, layer in source.named_layers():
        if layers.packing(layer) is None:
            raise FormatError(
                f"{name} has the unsupported type {layer.media_type[:100]!r}",
                hint="build the image again as an OCI image with gzip layers",
            )


def require_encrypted(source: Source) -> None:
    """Check that every layer is encrypted.

    Raises:
        IntegrityError: names the first that is not.
    """
    for name, layer in source.named_layers():
        if not layer.encrypted:
            raise IntegrityError(f"{name} is not encrypted")
    if not source.manifest.layers:
        raise IntegrityError(f"{source.reference} has no layers, so nothing of it is encrypted")


def require_key(source: Source, key: ResourceUri) -> None:
    """Check that every layer is encrypted to one key, by what its annotation says.

    Raises:
        IntegrityError: a layer is plain, or for another key; names it.
        FormatError: an annotation does not parse.
    """
    require_encrypted(source)
    for name, layer in source.named_layers():
        packets = ocicrypt.layer_packets(layer)
        if not packets:
            raise IntegrityError(f"{name} is not encrypted for a key provider")
        for packet in packets:
            if packet.key != key:
                raise IntegrityError(f"{name} is encrypted to the key {packet.key}, not to {key}")


def require_plain(source: Source) -> None:
    """Check that no layer is encrypted.

    Raises:
        IntegrityError: names the first that is.
    """
    # Skopeo would leave such a layer as it is, readable for its old key only.
    for name, layer in source.named_layers():
        if layer.encrypted:
            raise IntegrityError(
                f"{name} is encrypted already",
                hint="encrypt the plain image; it would stay encrypted to the old key",
            )
