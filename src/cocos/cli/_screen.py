# SPDX-License-Identifier: Apache-2.0
"""What people see: rich's consoles, loaded at their first use.

Servers never use them, and importing rich takes longer than the rest of a small program.
The image of confidential VMs does without it: there, the plain one stands in.
"""

import sys
import traceback
from typing import Any


class Screen:
    """A rich console on standard output or standard error, made when it is first used."""

    def __init__(self, *, stderr: bool) -> None:
        self._to_stderr = stderr
        self._console: Any = None

    def console(self) -> Any:
        """Return the console itself."""
        if self._console is None:
            try:
                from rich.console import Console  # noqa: PLC0415 - that is what we are for
            except ImportError:
                self._console = _Plain(stderr=self._to_stderr)
            else:
                self._console = Console(stderr=self._to_stderr, highlight=False, soft_wrap=True)
        return self._console

    def __getattr__(self, name: str) -> Any:
        return getattr(self.console(), name)


class _Plain:
    """As much of a console as programs of the guest use."""

    is_terminal = False

    def __init__(self, *, stderr: bool) -> None:
        self._to_stderr = stderr

    def print(self, *words: object, end: str = "\n", **_: object) -> None:
        print(*words, end=end, file=sys.stderr if self._to_stderr else sys.stdout)

    def print_exception(self) -> None:
        traceback.print_exc()
