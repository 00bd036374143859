# SPDX-License-Identifier: Apache-2.0
"""Commands of cocos-cli around a computation's ends: hashes before it, the result after it."""

import base64
import io
from pathlib import Path
from typing import Annotated

import typer

from cocos.cli import _common as common
from cocos.crypto import sealed
from cocos.errors import ConfigError, FormatError, NotFoundError
from cocos.host import archive
from cocos.host.files import read_file, read_input
from cocos.host.images import skopeo
from cocos.wire import oci
from cocos.wire.manifest.computation import MAX_MANIFEST_BYTES, Computation

MAX_RESULT_BYTES = 4 * 2**30

_SUFFIX = ".zip.jwe"
_ANYBODY = (
    "nobody vouches for who made this result: it is sealed to your key, which whoever has your "
    "public key can do; the CVMS that brought it could have made it up"
)


def result(
    file: Annotated[Path, typer.Argument(help="Sealed result, as cvms-test stores it.")],
    *,
    key: Annotated[
        Path,
        typer.Option(
            "--private-key", "--key", "-k", help="Private key of a result consumer, as PEM."
        ),
    ],
    output_dir: Annotated[
        Path | None,
        typer.Option("-o", "--output-dir", help="New or empty folder. [default: ID-results]"),
    ] = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Open a sealed result, unpack it, print what the algorithm printed.

    A result is sealed to you, but not signed: that you can open it does not show that a CVM
    made it.
    """
    data = read_input(file, "the sealed result", limit=MAX_RESULT_BYTES)
    pem = read_file(key, "the private key")
    folder = output_dir or Path(f"{file.name.removesuffix(_SUFFIX)}-results")
    with common.reading(FormatError, path=file), common.reading(ConfigError, path=key):
        opened = sealed.open_sealed(data, pem)
    names = archive.unzip(io.BytesIO(opened), folder)
    log = folder / "stdout.log"
    output = log.read_bytes() if "stdout.log" in names else b""

    def human() -> None:
        common.stdout.write(output)
        common.stderr.print(f"{len(names)} files in {folder}", markup=False)
        common.stderr.print(f"note: {_ANYBODY}", markup=False, style="dim")

    told = {"folder": str(folder), "files": names, "stdout": output.decode("utf-8", "replace")}
    sender = {"sender_authenticated": False, "note": _ANYBODY}
    common.emit({**told, **sender}, human, as_json=as_json)


def checksum(
    subject: Annotated[
        str, typer.Argument(metavar="PATH", help="File, folder, or image (docker://…, oci:…).")
    ],
    *,
    manifest: Annotated[
        bool,
        typer.Option("--of-manifest", "--manifest", "-m", help="PATH is a manifest, as JSON."),
    ] = False,
    base64_: Annotated[
        bool, typer.Option("-b", "--base64", help="Print base64 instead of hex.")
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Print the hash by which a manifest, a policy or a token names something.

    To a pipe or a variable it goes bare: -algo-hash "$(cocos-cli checksum docker://…)".

    Image: SHA-256 of its config, the same before and after encryption; for -algo-hash,
    -dataset-hash and the hash members of a manifest. Manifest: SHA-256 of its meaning, as
    it is measured and shown to a KBS's policy. File or folder: SHA3-256, as in the original.
    """
    if manifest:
        text = read_input(Path(subject), "the manifest", limit=MAX_MANIFEST_BYTES)
        what, digest = "manifest file", Computation.from_json(text).digest()
    elif Path(subject).exists():
        what, digest = "file", archive.checksum(Path(subject))
    else:
        what, digest = "image", common.run_async(_image_hash(_reference(subject)))
    shown = base64.b64encode(digest).decode() if base64_ else digest.hex()
    common.emit(
        {"what": what, "hash": shown},
        lambda: _show_hash(what, shown),
        as_json=as_json,
    )


def _show_hash(what: str, shown: str) -> None:
    """Say to people what it is the hash of; whoever takes it up gets it bare."""
    if common.stdout.is_terminal:
        common.stderr.print(f"Hash of {what}: ", end="")
    common.stdout.print(shown)


def _reference(path: str) -> oci.Reference:
    try:
        return oci.Reference.parse(path)
    except FormatError as error:
        if ":" in path:
            raise
        raise NotFoundError(f"there is no {path}", hint=error.hint) from error


async def _image_hash(reference: oci.Reference) -> bytes:
    tool = await skopeo.find()
    found = await tool.resolve(reference)
    return bytes.fromhex(found.manifest.config.digest.removeprefix("sha256:"))
