# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli image``: build the image that confidential VMs boot, and say what it measures."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cocos.cli import _common as common
from cocos.errors import ConfigError
from cocos.host.files import cache_folder, read_file
from cocos.image import build as image_build
from cocos.image.config import DEBUG_NAME, DEFAULT_NAME, BuildSettings

app = common.make_app("Build the image that confidential VMs boot, and say what it measures.")

_MIB = 2**20


@app.command()
def build(
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder of the image. [default: cocos or cocos-debug in the cache, where the "
            "manager looks]",
        ),
    ] = None,
    debug_image: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="With a root shell on the serial console and SSH; it measures differently, "
            "and policies refuse it.",
        ),
    ] = False,
    refresh: Annotated[
        bool, typer.Option(help="Fetch packages and wheels anew, although they are cached.")
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Build an image from Debian 13's packages, locked wheels and this program's own files.

    The same inputs give the same bytes. reference-values.json beside it is for
    `kbs-client config set-reference-values`.
    """
    name = DEBUG_NAME if debug_image else DEFAULT_NAME
    folder = (output or cache_folder("image") / name).absolute()
    settings = BuildSettings(output=folder, debug=debug_image, refresh=refresh)
    with common.stderr.status("starting") as status:

        def show(step: str) -> None:
            status.update(step)
            if not common.stderr.is_terminal:
                common.stderr.print(f"image: {step}", markup=False)

        description = common.run_async(image_build.build(settings, show))
    common.emit(
        {"folder": str(folder), **description}, lambda: _show(folder, description), as_json=as_json
    )


@app.command()
def inspect(
    *,
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of the image.", show_default=False)
    ] = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Show what an image measures, and from which inputs that was computed."""
    place = folder or cache_folder("image") / DEFAULT_NAME
    description = _read(place / image_build.DESCRIPTION)
    values = _read(place / image_build.REFERENCE_VALUES)
    common.emit(
        {"folder": str(place), **description, "reference_values": values},
        lambda: _show(place, description),
        as_json=as_json,
    )


def _read(path: Path) -> Any:
    text = read_file(path, "the image's description")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"{path} is not JSON", hint="cocos-cli image build makes the image anew"
        ) from error


def _show(folder: Path, description: dict[str, Any]) -> None:
    lines = [f"folder      {folder}", f"kernel      {description['kernel']}"]
    if description["debug"]:
        lines.append("debug       yes: a root shell for its host; policies refuse it")
    for name, file in description["files"].items():
        size = f"{file['bytes'] / _MIB:7.2f} MiB"
        lines.append(f"{name:26}{size}  sha256 {file['sha256']}")
    lines.append(f"command line\n  {description['cmdline']}")
    for name, value in _read(folder / image_build.REFERENCE_VALUES).items():
        if isinstance(value, list):
            lines += [f"{name:26}{each}" for each in value if isinstance(each, str)]
    common.stdout.print("\n".join(lines), markup=False)
