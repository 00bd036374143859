# SPDX-License-Identifier: Apache-2.0
"""Fetching an image to be used on this machine: pinned, decrypted if it must be, verified."""

import asyncio
import os
import shutil
from pathlib import Path

from cocos.errors import IntegrityError, StateError
from cocos.host import layout
from cocos.host.layout import VerifiedImage
from cocos.host.skopeo import OnProgress, Skopeo, require_key
from cocos.wire import oci
from cocos.wire.kbs import ResourceUri


async def fetch(
    skopeo: Skopeo,
    source: oci.Reference | str,
    folder: Path,
    *,
    key: ResourceUri | None,
    kbs_url: str | None = None,
    keyprovider_config: Path | None = None,
    config_digest: oci.Digest | None = None,
    on_progress: OnProgress | None = None,
) -> VerifiedImage:
    """Fetch one image into a new private folder, as an OCI layout of verified plaintext.

    The image is looked at before anything else and then fetched by digest: what was looked
    at is what is used.

    Args:
        skopeo: How to reach the registry.
        source: Where the image is.
        folder: Made by this call; it is gone again if the call fails.
        key: The image must be encrypted, every layer, to this key; None: it must be plain.
        kbs_url: The KBS to ask for the key; None: the key provider's own.
        keyprovider_config: File of ocicrypt that names the key provider; needed with ``key``.
        config_digest: The image's config must have this digest.
        on_progress: Called as bytes go by.

    Raises:
        IntegrityError: plain though it should be encrypted, or the other way round;
            encrypted to another key; another config; or content that does not hold. Names
            the layer.
        CocosError: as translated from what Skopeo says.
    """
    found = await skopeo.resolve(source)
    if config_digest is not None and found.manifest.config.digest != config_digest:
        raise IntegrityError(
            f"the config of {found.reference} is {found.manifest.config.digest}, "
            f"not {config_digest} as demanded"
        )
    if key is not None:
        require_key(found, key)
    else:
        _require_usable(found.manifest, found.reference)
    _make(folder)
    target = oci.Reference("oci", str(folder))
    try:
        copied = await skopeo.copy(
            found.reference,
            target,
            decryption_key=None if key is None else f"cc_kbc::{kbs_url or 'null'}",
            keyprovider_config=keyprovider_config,
            on_progress=on_progress,
        )
        if copied.image is not None:
            return copied.image
        config = oci.parse_digest(found.manifest.config.digest)
        return await asyncio.to_thread(layout.verify, folder, config_digest=config)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _require_usable(manifest: oci.Manifest, reference: oci.Reference) -> None:
    for number, layer in enumerate(manifest.layers):
        if layer.encrypted:
            raise IntegrityError(
                f"layer {number + 1} ({layer.digest}) of {reference} is encrypted, but no key is "
                "named for it",
                hint="the manifest must say encrypted and name the kbs_resource_path",
            )


def _make(folder: Path) -> None:
    try:
        os.mkdir(folder, 0o700)  # noqa: PTH102 - fails if it exists
    except FileExistsError as error:
        raise StateError(f"{folder} exists already") from error
