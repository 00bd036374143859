# SPDX-License-Identifier: Apache-2.0
"""Make sure of a Skopeo that knows key providers, and of servers to test with.

None of it comes as a package of this system: Debian 12's Skopeo cannot, and its packages of
servers start services. They are fetched from Debian 13 into private folders of the user's
cache when they are missing.
"""

import shlex
import shutil
import sys
import time
from pathlib import Path

import databases

from cocos.cli._common import configure_logs, run_async, stderr
from cocos.errors import CocosError, ToolMissingError
from cocos.host import process
from cocos.host.files import write_atomic
from cocos.host.images import skopeo
from cocos.host.tools import toolbox

BIN = Path(sys.executable).parent


async def install() -> None:
    """Install what is missing, and say so.

    Raises:
        CocosError: mmdebstrap failed, or the programs do not work here.
    """
    try:
        await skopeo.find()
        await skopeo.find_registry()
    except ToolMissingError as reason:
        print(f"setup: {reason.message}")
        print(
            "setup: fetching Debian 13's Skopeo and registry into your cache folder …", flush=True
        )
        begin = time.monotonic()
        await toolbox.install(check)
        print(f"setup: fetched and tried them in {time.monotonic() - begin:.1f} s")
    if shutil.which("docker-registry") is None:
        words = shlex.join(await skopeo.find_registry())
        script = f'#!/bin/sh\nexec {words} "$@"\n'
        write_atomic(BIN / "docker-registry", script.encode(), mode=0o755)
    if databases.find() is None:
        print(
            "setup: fetching PostgreSQL and Valkey, which the tests start and stop, into your "
            "cache folder …",
            flush=True,
        )
        begin = time.monotonic()
        await databases.install()
        print(f"setup: fetched and tried them in {time.monotonic() - begin:.1f} s")


async def check(box: toolbox.Toolbox) -> None:
    """Try the new programs before anybody uses them."""
    await skopeo.probe(skopeo.Skopeo(box.argv("skopeo")))
    await process.run([*box.argv("docker-registry"), "--version"])


if __name__ == "__main__":
    configure_logs("warning")
    try:
        run_async(install())
    except CocosError as error:
        stderr.print(f"setup: {error.message}", markup=False)
        stderr.print(f"  hint: {error.hint}" if error.hint else "", markup=False)
        sys.exit(error.exit_code)
