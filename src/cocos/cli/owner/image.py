# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli image``: build the image that confidential VMs boot, and say what it measures."""

import json
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cocos.cli import _common as common
from cocos.errors import ConfigError, NotFoundError
from cocos.host.files import cache_folder, read_file
from cocos.image import build as image_build
from cocos.image.build import Outcome
from cocos.image.config import DEBUG_NAME, DEFAULT_NAME, BuildSettings, Step
from cocos.wire.image_folder import DESCRIPTION, REFERENCE_VALUES

app = common.make_app("Build the image that confidential VMs boot, and say what it measures.")

_MIB = 2**20


@app.command()
def build(
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output-dir",
            "--output",
            help="Folder of the image. [default: cocos or cocos-debug in the cache, where the "
            "manager looks]",
        ),
    ] = None,
    debug_image: Annotated[
        bool,
        typer.Option(
            "--debug-image",
            "--debug",
            help="With a root shell on the serial console and SSH; it measures differently, "
            "and policies refuse it.",
        ),
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Fetch packages and wheels anew, although they are cached."),
    ] = False,
    confidential: Annotated[
        bool,
        typer.Option(
            help="Take Debian forky's firmware for SEV-SNP and TDX along, and predict what "
            "VMs with encrypted memory measure."
        ),
    ] = True,
    cpus: Annotated[
        int,
        typer.Option(
            "--max-cpus",
            "--cpus",
            min=1,
            max=255,
            help="Most processors of a VM with SEV-SNP: their number shows in its measurement, "
            "so that there is one for each.",
        ),
    ] = 16,
    as_json: common.JsonFlag = False,
) -> None:
    """Build an image from Debian 13's packages, locked wheels and this program's own files.

    Does nothing when that would change nothing. The same inputs give the same bytes.
    reference-values.json beside it is for `kbs-client config set-reference-values`.
    """
    name = DEBUG_NAME if debug_image else DEFAULT_NAME
    folder = (output or cache_folder("image") / name).absolute()
    settings = BuildSettings(
        output=folder, debug=debug_image, refresh=refresh, confidential=confidential, cpus=cpus
    )
    with _Bar() as bar:
        outcome = common.run_async(image_build.build(settings, bar.show))
    result = {"folder": str(folder), "up_to_date": outcome.up_to_date, **outcome.description}
    common.emit(result, lambda: _show_built(folder, outcome), as_json=as_json)


@app.command()
def inspect(
    *,
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of the image.", show_default=False)
    ] = None,
    debug_image: Annotated[
        bool,
        typer.Option(
            "--debug-image", "--debug", help="Show the debug image, if no folder is named."
        ),
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Show what an image measures, and from which inputs that was computed."""
    place = folder or cache_folder("image") / (DEBUG_NAME if debug_image else DEFAULT_NAME)
    description = _read(place / DESCRIPTION)
    values = _read(place / REFERENCE_VALUES)
    common.emit(
        {"folder": str(place), **description, "reference_values": values},
        lambda: common.stdout.print(
            "\n".join([*_summary(place, description), *_measured(values)]), markup=False
        ),
        as_json=as_json,
    )


class _Bar:
    """Shows how far a build is: a bar on a terminal, elsewhere a line per step."""

    def __init__(self) -> None:
        self._step: Step | None = None
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=common.stderr.console(),
            transient=True,
            disable=not common.stderr.is_terminal,
        )
        self._task = self._bar.add_task("looking at the inputs", total=len(Step))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, step: Step, detail: str) -> None:
        text = f"{step}, {detail}" if detail else str(step)
        self._bar.update(self._task, description=text, completed=list(Step).index(step))
        if step != self._step and not common.stderr.is_terminal:
            common.stderr.print(f"image: {step}", markup=False)
        self._step = step


def _read(path: Path) -> Any:
    if not path.exists():
        raise NotFoundError(f"there is no {path}", hint="cocos-cli image build makes one")
    text = read_file(path, "the image's description")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"{path} is not JSON", hint="cocos-cli image build makes the image anew"
        ) from error


def _show_built(folder: Path, outcome: Outcome) -> None:
    if outcome.up_to_date:
        common.stdout.print("up to date: nothing that decides the image has changed")
    common.stdout.print("\n".join(_summary(folder, outcome.description)), markup=False)
    common.stdout.print(f"cocos-cli image inspect {folder} shows what it measures", markup=False)


def _summary(folder: Path, description: dict[str, Any]) -> list[str]:
    lines = [f"folder      {folder}", f"kernel      {description['kernel']}"]
    if description["debug"]:
        lines.append("debug       yes: a root shell for its host; policies refuse it")
    for name, file in description["files"].items():
        size = f"{file['bytes'] / _MIB:7.2f} MiB"
        lines.append(f"{name:24}{size}  sha256 {file['sha256']}")
    return [*lines, f"command line\n  {description['cmdline']}"]


def _measured(values: dict[str, Any]) -> list[str]:
    """Return the reference values, by what they were computed from."""
    lines = []
    for title, inputs in values["inputs"].items():
        lines.append(title)
        for name, value in inputs.items():
            if name != "values":
                lines.append(f"  {name}: {_words(value)}")
        for name in inputs.get("values", ()):
            lines += [f"  {name:24}{value}" for value in values[name]]
            for events in values.get(f"{name}_events", ()):
                lines += [f"      {event['digest']}  {event['event']}" for event in events]
    return lines


def _words(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{name} {inner}" for name, inner in value.items())
        case None | "":
            return "none"
    return str(value)
