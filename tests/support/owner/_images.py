# SPDX-License-Identifier: Apache-2.0
"""Tiny real images: OCI layouts around Debian's static busybox, made without any tool."""

import io
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cocos.wire import oci
from cocos.wire.json import encode

BUSYBOX = Path("/bin/busybox")  # Debian's package busybox-static


def tar(files: Mapping[str, bytes], *, executable: Sequence[str] = (), user: int = 0) -> bytes:
    """Return a layer with these files, and ``/bin/sh`` and friends for ``bin/busybox``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755 if name in executable else 0o644
            info.uid = info.gid = user
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def busybox_layer(script: str, extra: Mapping[str, bytes] | None = None) -> bytes:
    """Return a layer whose ``/run.sh`` is ``script``, run by busybox's shell."""
    assert BUSYBOX.exists(), "install busybox-static"
    files = {"bin/busybox": BUSYBOX.read_bytes(), "run.sh": script.encode(), **(extra or {})}
    return tar(files, executable=["bin/busybox", "run.sh"])


def write_layout(
    folder: Path,
    layers: Sequence[bytes],
    config: oci.ContainerConfig | None = None,
    *,
    tag: str = "latest",
) -> oci.Digest:
    """Write an OCI layout with one image; return its config's digest."""
    image = oci.ImageConfig(
        oci.RootFs(tuple(oci.digest_of(layer) for layer in layers)), "amd64", "linux", config
    )
    config_data = encode(image)
    manifest = encode(
        oci.Manifest(
            schema_version=2,
            config=oci.Descriptor(oci.CONFIG, oci.digest_of(config_data), len(config_data)),
            layers=tuple(
                oci.Descriptor(oci.LAYER_TAR, oci.digest_of(layer), len(layer)) for layer in layers
            ),
        )
    )
    blobs = {oci.digest_of(data): data for data in (*layers, config_data, manifest)}
    entry = oci.Descriptor(
        oci.MANIFEST, oci.digest_of(manifest), len(manifest), {oci.REF_NAME: tag}
    )
    if folder.exists():
        shutil.rmtree(folder)
    for path, data in oci.layout_files(blobs, entry).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return oci.digest_of(config_data)


def algorithm(folder: Path, script: str, **config: object) -> oci.Digest:
    """Write the layout of an algorithm that runs ``script`` with its arguments."""
    settings = {"entrypoint": ("/bin/busybox", "sh", "/run.sh"), **config}
    return write_layout(folder, [busybox_layer(script)], oci.ContainerConfig(**settings))  # type: ignore[arg-type]
