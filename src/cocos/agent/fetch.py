# SPDX-License-Identifier: Apache-2.0
"""One image from its registry to a verified, plain layout in a private folder.

In two steps, so that what will run can be measured before any key is asked for. First the
image is *resolved*: index, manifest and config are read once, and everything that the
computation's manifest says about the image is checked on them. Later it is *fetched*: the
copy asks for the manifest by its digest, Skopeo decrypts, and every layer's plaintext must
be what the config says that was measured. That config, no second copy, says how it is run.
"""

import asyncio
import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from cocos.agent.registries import KbsCredentials, reached
from cocos.crypto.kek import WrapType
from cocos.errors import AccessDeniedError, FormatError, IntegrityError, StorageError
from cocos.host.images import layout
from cocos.host.images.layout import VerifiedImage
from cocos.host.images.skopeo import Skopeo, require_image
from cocos.host.images.skopeo import Source as Found
from cocos.wire import oci
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.manifest.parts import Source
from cocos.wire.ocicrypt import layer_packets

TAG = "latest"

_STEP_PERCENT = 10

_log = structlog.get_logger(__name__)

OnPercent = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Resolved:
    """An image by what it holds, before any layer of it is read.

    Attributes:
        source: Where from, and with which key.
        found: Its manifest.
        config: Its config, which names the plaintext of every layer.
    """

    source: Source
    found: Found
    config: oci.ImageConfig

    @property
    def digest(self) -> str:
        """SHA-256 of the config in hex, as a manifest pins it."""
        return self.found.manifest.config.digest.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Resolves and fetches images.

    Attributes:
        skopeo: One that knows key providers.
        keyprovider_config: ocicrypt's file that names the key provider.
        local_sources: Whether folders of this machine (``oci:/…``) may be named.
        credentials: For private registries.
    """

    skopeo: Skopeo
    keyprovider_config: Path
    local_sources: bool = False
    credentials: KbsCredentials | None = None

    async def resolve(self, source: Source, pin: bytes) -> Resolved:
        """Find out which image a name stands for now; no key is asked for.

        Args:
            source: Where from, and with which key.
            pin: SHA-256 of the image's config, or empty.

        Raises:
            IntegrityError: the image is not what the manifest says: another hash, encrypted
                or not, or to another key. Names the layer.
            CocosError: of the registry; see :mod:`cocos.host.images.skopeo`.
        """
        reference = oci.Reference.parse(source.url)
        if reference.transport == "oci" and not self.local_sources:
            raise AccessDeniedError(f"{source.url}: images must come from a registry")
        async with reached(self.skopeo, self.credentials, reference) as tool:
            found = await tool.resolve(reference)
            check(found, source, pin)
            return Resolved(source, found, await tool.config(found))

    async def fetch(self, resolved: Resolved, folder: Path, on_percent: OnPercent) -> VerifiedImage:
        """Fetch, decrypt and verify an image that was resolved.

        Args:
            resolved: The image.
            folder: Where to; a layout whose one image is tagged :data:`TAG`. Must not exist.
            on_percent: Told of every ten percent.

        Returns:
            The image; its config is the one that was resolved.

        Raises:
            IntegrityError: another image came, or one that was changed. Names the layer.
            CocosError: registry, key provider or KBS; see :mod:`cocos.host.images.skopeo`.
        """
        source = resolved.source
        progress = _Progress(on_percent)
        target = oci.Reference("oci", str(folder), TAG)
        async with reached(self.skopeo, self.credentials, resolved.found.reference) as tool:
            if source.encrypted:
                copied = await tool.copy(
                    resolved.found,
                    target,
                    decryption_key=f"cc_kbc::{source.kbs or 'null'}",
                    keyprovider_config=self.keyprovider_config,
                    on_progress=progress,
                )
                image = copied.image
            else:
                await tool.copy(resolved.found, target, on_progress=progress)
                image = await asyncio.to_thread(layout.verify, folder, tag=TAG)
        if image is None:
            raise IntegrityError(f"{source.url}: nothing vouches for the decrypted image")
        # Skopeo rewrites a Docker image's config on the way, but no plaintext.
        if image.config.rootfs.diff_ids != resolved.config.rootfs.diff_ids:
            raise IntegrityError(
                f"{source.url} is not the image any more that was measured: it was exchanged"
            )
        _check_space(image, folder)
        return dataclasses.replace(image, config=resolved.config)


def check(found: Found, source: Source, pin: bytes) -> None:
    """Check an image's manifest against what the computation's manifest says about it.

    Raises:
        IntegrityError: names the layer and the difference.
        FormatError: it is no container image, or has layers that cannot be unpacked.
    """
    config = found.manifest.config.digest
    if pin and config != f"sha256:{pin.hex()}":
        raise IntegrityError(
            f"{source.url} is another image than the manifest names: its config is {config}, "
            f"the hash in the manifest sha256:{pin.hex()}",
            hint="cocos-cli checksum docker://… prints the hash of an image",
        )
    require_image(found)
    if not found.manifest.layers:
        raise FormatError(f"{source.url} has no layers")
    for number, layer in enumerate(found.manifest.layers, 1):
        name = f"layer {number} ({layer.digest}) of {source.url}"
        if layer.encrypted and not source.encrypted:
            raise IntegrityError(
                f"{name} is encrypted, but the manifest names no key for it",
                hint="set encrypted and kbs_resource_path",
            )
        if source.encrypted and not layer.encrypted:
            raise IntegrityError(
                f"{name} is not encrypted, but the manifest says that it is",
                hint="encrypt the image: cocos-cli encrypt; or correct the manifest",
            )
        if source.encrypted:
            _check_key(layer, name, ResourcePath.parse(source.key).uri)


def _check_key(layer: oci.Descriptor, name: str, expected: str) -> None:
    packets = layer_packets(layer)
    if not packets:
        raise IntegrityError(f"{name} is not encrypted to a key of a KBS")
    for packet in packets:
        if str(packet.key) != expected:
            raise IntegrityError(
                f"{name} is encrypted to {packet.key}, but the manifest names {expected}",
                hint="the image or the manifest's kbs_resource_path was changed",
            )
        # Whoever stores the image could turn A256GCM into A256CTR, change bits, and learn
        # the layer key from which changes make a run fail early.
        if packet.wrapped.wrap_type is not WrapType.A256GCM:
            raise IntegrityError(
                f"the key of {name} is wrapped with {packet.wrapped.wrap_type}, which shows no "
                "change of it",
                hint="encrypt the image again, with A256GCM",
            )


def _check_space(image: VerifiedImage, folder: Path) -> None:
    needed = sum(layer.plain_bytes for layer in image.layers)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"the image unpacks to {needed} bytes, but {folder} has only {free} left"
        )


class _Progress:
    def __init__(self, on_percent: OnPercent) -> None:
        self._on_percent = on_percent
        self._next = _STEP_PERCENT

    def __call__(self, done: int, total: int) -> None:
        percent = done * 100 // total if total else 100
        if percent >= self._next:
            self._on_percent(percent - percent % _STEP_PERCENT)
            self._next = percent - percent % _STEP_PERCENT + _STEP_PERCENT
