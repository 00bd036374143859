# SPDX-License-Identifier: Apache-2.0
"""Skopeo: finding one that knows key providers, copying images with it, checking the result.

Exit code 0 of Skopeo proves nothing about encryption, so every copy is checked afterwards:
encrypted means that every layer is, decrypted means that none is and that every layer's
plaintext is what the image's config says. Signatures of images are not what our trust
rests on (keys go to attested machines only); TLS is always verified, except that a
registry on loopback may speak plain http.
"""

import shlex
import tempfile
from pathlib import Path

from cocos.errors import CocosError, ToolMissingError
from cocos.host import process
from cocos.host.images._skopeo import LOOPBACK, Copied, Skopeo, registries_conf, trust_policy
from cocos.host.images._skopeo_run import OnProgress
from cocos.host.images.required import (
    Source,
    require_encrypted,
    require_image,
    require_key,
    require_plain,
)
from cocos.host.images.skopeo_errors import OLD_SKOPEO_HINT
from cocos.host.tools import toolbox
from cocos.host.tools.toolbox import Toolbox
from cocos.wire import oci, ocicrypt
from cocos.wire.json import encode

__all__ = [
    "LOOPBACK",
    "Copied",
    "OnProgress",
    "Skopeo",
    "Source",
    "find",
    "find_registry",
    "install",
    "probe",
    "registries_conf",
    "require_encrypted",
    "require_image",
    "require_key",
    "require_plain",
    "trust_policy",
]


CHECKED = Path("/usr/lib/cocos/skopeo-checked")
"""In the image of a VM, which is read-only and measured: its build has probed its Skopeo."""


async def find() -> Skopeo:
    """Return a Skopeo that has been seen to use a key provider: PATH's, or the toolbox's.

    Raises:
        ToolMissingError: there is none; :func:`install` gets one.
    """
    reason = "it is not installed"
    try:
        own = Skopeo((str(process.find_tool("skopeo", hint=OLD_SKOPEO_HINT)),))
        if not CHECKED.exists():  # noqa: ASYNC240 - a look at memory
            await probe(own)
    except CocosError as error:
        reason = error.message
    else:
        return own
    box = toolbox.find()
    if box is None:
        raise ToolMissingError(f"no Skopeo with key providers: {reason}", hint=OLD_SKOPEO_HINT)
    return Skopeo(box.argv("skopeo"))


async def install() -> Skopeo:
    """Return what :func:`find` returns, installing Debian 13's Skopeo first where needed.

    Takes some seconds and the network the first time.

    Raises:
        ToolMissingError: mmdebstrap is missing, or even the new Skopeo does not do.
        ProcessError: the packages could not be fetched.
    """
    try:
        return await find()
    except ToolMissingError:
        box = await toolbox.install(_check_toolbox)
        return Skopeo(box.argv("skopeo"))


async def find_registry() -> tuple[str, ...]:
    """Return the words that start a ``docker-registry`` without any service installed.

    Raises:
        ToolMissingError: the toolbox has not been installed.
    """
    box = toolbox.find()
    if box is not None:
        return box.argv("docker-registry")
    hint = "apt-get install docker-registry"
    return (str(process.find_tool("docker-registry", hint=hint)),)


async def _check_toolbox(box: Toolbox) -> None:
    await probe(Skopeo(box.argv("skopeo")))
    await process.run([*box.argv("docker-registry"), "--version"])


async def probe(skopeo: Skopeo) -> None:
    """Encrypt a tiny image with a dummy provider; the version number proves nothing.

    Raises:
        CocosError: this Skopeo does not use key providers.
    """
    with tempfile.TemporaryDirectory(prefix="cocos-probe-") as name:
        folder = Path(name)
        layer = bytes(1024)  # the end-of-archive mark: an empty tar
        config = encode(oci.ImageConfig(oci.RootFs((oci.digest_of(layer),)), "amd64", "linux"))
        manifest = encode(
            oci.Manifest(
                schema_version=2,
                config=oci.Descriptor(oci.CONFIG, oci.digest_of(config), len(config)),
                layers=(oci.Descriptor(oci.LAYER_TAR, oci.digest_of(layer), len(layer)),),
            )
        )
        blobs = {oci.digest_of(blob): blob for blob in (layer, config, manifest)}
        entry = oci.Descriptor(oci.MANIFEST, oci.digest_of(manifest), len(manifest))
        for path, data in oci.layout_files(blobs, entry).items():
            (folder / "in" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "in" / path).write_bytes(data)
        reply = ocicrypt.wrap_output(b"{}").decode()
        dummy = folder / "provider.json"
        script = f"cat >/dev/null; echo {shlex.quote(reply)}"
        dummy.write_bytes(ocicrypt.command_config(["/bin/sh", "-c", script]))
        await skopeo.copy(
            oci.Reference("oci", f"{folder}/in"),
            oci.Reference("oci", f"{folder}/out"),
            encryption_key="probe",
            keyprovider_config=dummy,
        )
