# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli env``: shell code that makes the guide's command lines work as they are written."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from cocos.cli import _common as common
from cocos.errors import CocosError
from cocos.host.files import cache_folder, write_atomic
from cocos.host.images import skopeo
from cocos.wire import json, ocicrypt

KEYPROVIDER_ADDRESS = "127.0.0.1:50011"
GUIDE_PROGRAMS = {
    "./build/cocos-manager": "cocos-manager",
    "./build/cvms-test": "cvms-test",
    "./build/cocos-cli": "cocos-cli",
    "./target/release/kbs": "kbs",
    "./target/release/kbs-client": "kbs-client",
}
"""Where the original guide has its programs → our program."""

# In a background job $! is a subshell: what ends it must end the program, too.
_RUNNER = """\
_cocos_run() {
  if (( BASH_SUBSHELL == 0 )); then "$@"; return; fi
  local child= stop= status
  trap 'stop=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null' TERM INT HUP
  "$@" <&0 &
  child=$!
  [[ -z $stop ]] || kill -TERM "$child" 2>/dev/null
  wait "$child"; status=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
  trap - TERM INT HUP
  return "$status"
}
"""


def env(
    *,
    keyprovider: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Key provider that Skopeo is to ask."),
    ] = KEYPROVIDER_ADDRESS,
    original_paths: Annotated[
        bool,
        typer.Option(
            "--original-paths",
            help="In bash also define ./build/cocos-cli and the other command lines of the "
            "original Cocos guide; where a folder really has such a program, ours runs.",
        ),
    ] = False,
    as_json: common.JsonFlag = False,
) -> None:
    """Print shell code: eval "$(cocos-cli env)".

    It puts our programs and a Skopeo that knows key providers on PATH, and names their
    configuration: the key provider, and registries on loopback, those only, by plain http.
    """
    try:
        variables = common.run_async(prepare(cache_folder("env"), keyprovider))
    except CocosError:
        if not as_json:
            print("false")  # noqa: T201 - eval of nothing would look like success
        raise
    common.emit(
        variables,
        lambda: print(  # noqa: T201
            shell_code(variables, own_programs() if original_paths else None), end=""
        ),
        as_json=as_json,
    )


def own_programs() -> Path:
    """Return the folder that holds our console scripts."""
    return Path(sys.executable).parent


async def prepare(folder: Path, keyprovider: str) -> dict[str, str]:
    """Write the files that the environment names; the same ones every time.

    Args:
        folder: Private folder of ours.
        keyprovider: ``HOST:PORT``.

    Returns:
        Variable → value; the value of PATH goes before what is there.

    Raises:
        ToolMissingError: no Skopeo with key providers can be had.
    """
    _leave_out_of_path(folder / "bin")
    with common.stderr.status("looking for a Skopeo that knows key providers"):
        found = await skopeo.install()
    programs = found.install_wrapper(folder)
    config = folder / "ocicrypt_keyprovider.conf"
    provider = {ocicrypt.PROVIDER: {"grpc": keyprovider}}
    write_atomic(config, json.encode({"key-providers": provider}))
    _install_grpcurl(programs)
    return {
        "PATH": f"{programs}:{own_programs()}",
        "OCICRYPT_KEYPROVIDER_CONFIG": str(config),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }


def shell_code(variables: dict[str, str], programs: Path | None) -> str:
    """Return POSIX shell code that sets the variables.

    Args:
        variables: Name → value.
        programs: Folder of our programs, to define the original guide's command lines in bash.
    """
    lines = []
    for name, value in variables.items():
        quoted = shlex.quote(value)
        rest = '"${PATH:+:$PATH}"' if name == "PATH" else ""
        lines.append(f"{name}={quoted}{rest}; export {name}")
    if programs is None:
        return "\n".join(lines) + "\n"
    functions = _RUNNER + "".join(
        f'function {line} {{ _cocos_run {shlex.quote(str(programs / name))} "$@"; }}\n'
        for line, name in GUIDE_PROGRAMS.items()
    )
    # Other shells, and bash in POSIX mode, do not parse such names: hide them in a word.
    lines += [
        'case "${BASH_VERSION:+bash}:${SHELLOPTS-}:" in',
        "*:posix:*) ;;",
        f"bash:*) eval {shlex.quote(functions)} ;;",
        "esac",
    ]
    return "\n".join(lines) + "\n"


def _leave_out_of_path(folder: Path) -> None:
    """Once evaluated, our wrappers are on PATH; a wrapper must not be wrapped around itself."""
    words = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(word for word in words if Path(word) != folder)


def _install_grpcurl(folder: Path) -> None:
    """The guide uses grpcurl, which Debian does not have; a real one on PATH is left alone."""
    ours = folder / "grpcurl"
    if shutil.which("grpcurl") is not None:
        ours.unlink(missing_ok=True)
        return
    script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m cocos.cli.owner.grpcurl "$@"\n'
    write_atomic(ours, script.encode(), mode=0o700)
