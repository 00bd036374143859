# SPDX-License-Identifier: Apache-2.0
"""Our grpcurl's command line, without the time that a process needs to start."""

import asyncio
import json
from typing import Any

from typer.testing import CliRunner

from cocos.cli.owner.grpcurl import app
from cocos.errors import CocosError


async def grpcurl(address: str, method: str, argument: str, *, stdin: str = "") -> Any:
    """Call ``grpcurl -plaintext -d ARGUMENT ADDRESS METHOD``; returns the parsed answer.

    Raises:
        CocosError: as the program reports it.
    """
    words = ["-plaintext", "-d", argument, address, method]
    done = await asyncio.to_thread(CliRunner().invoke, app, words, input=stdin)
    if isinstance(done.exception, CocosError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)
