# SPDX-License-Identifier: Apache-2.0
"""Compile a policy in a child process before a service takes it.

The policy engine is native code that some texts crash or keep busy for ever; a policy
that survived here does not take the key broker down.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Final

from cocos.errors import CocosError, FormatError, InternalError, ProcessError, UnreachableError
from cocos.host import process
from cocos.policy.engine import Policy

SECONDS: Final = 20
MEMORY_BYTES: Final = 2 * 2**30


async def try_policy(text: str) -> None:
    """Return if a policy compiles and can be evaluated on empty documents.

    Args:
        text: Rego of package ``policy``.

    Raises:
        FormatError: it does not, crashes the engine, or does not end within 20 seconds.
    """
    try:
        source = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError("the policy is not text") from error
    # Without -P modules would come from the folder that the service happens to run in.
    argv = [sys.executable, "-P", "-m", __spec__.name]
    try:
        done = await process.run(argv, stdin=source, timeout=SECONDS)
    except UnreachableError as error:
        raise FormatError(
            f"the policy engine does not finish with this policy within {SECONDS} s"
        ) from error
    except ProcessError as error:
        if error.exit_status > 0:
            raise InternalError("cannot try the policy in a process of its own") from error
        raise FormatError(
            "the policy engine crashes on this policy",
            hint="look for a rule or default given twice, or an else that can never be reached",
        ) from error
    result = json.loads(done.stdout)
    if result is not None:
        raise FormatError(result["message"], hint=result["hint"])


def _main() -> None:
    """Compile standard input; print null, or the error as JSON."""
    # The engine has reserved address space at its import, far more than it will ever use.
    reserved = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        Policy.compile(sys.stdin.buffer.read().decode("utf-8"))
    except CocosError as error:
        json.dump({"message": error.message, "hint": error.hint}, sys.stdout)
    else:
        json.dump(None, sys.stdout)


if __name__ == "__main__":
    _main()
