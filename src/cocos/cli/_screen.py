# SPDX-License-Identifier: Apache-2.0
"""What people see: rich's consoles, loaded at their first use.

Much of it is somebody else's text: what an algorithm printed, a registry's answer, a file's
name. It is shown as it is, never as markup or emoji. A terminal would obey some of it; there,
and on standard error, such characters are shown by signs (ESC as ``␛``). To a file or a pipe
standard output goes unchanged.

Servers never use the consoles, and importing rich takes longer than the rest of a small
program. The image of confidential VMs does without it: there, the plain one stands in.
"""

import codecs
import io
import sys
import traceback
from contextlib import AbstractContextManager
from typing import Any

_DELETE = 0x7F
_OBEYED: dict[int, str] = {
    **{number: chr(0x2400 + number) for number in range(0x20) if chr(number) not in "\n\t"},
    _DELETE: "␡",
    **{number: f"\\x{number:02x}" for number in range(0x80, 0xA0)},
    # These turn the text's direction, so that it reads as something else than it is.
    **{number: f"\\u{number:04x}" for number in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    # Half a character, as file names that are not UTF-8 have them: nothing can be sent of it.
    **{number: f"\\u{number:04x}" for number in range(0xD800, 0xE000)},
}


def visible(text: str) -> str:
    """Return a text whose every character a terminal shows instead of obeying it."""
    return text.replace("\r\n", "\n").translate(_OBEYED)


class Screen:
    """A rich console on standard output or standard error, made when it is first used."""

    def __init__(self, *, stderr: bool) -> None:
        self._to_stderr = stderr
        self._console: Any = None
        self._decoder: io.IncrementalNewlineDecoder | None = None

    def console(self) -> Any:
        """Return the console itself; what it prints as text is neither markup nor emoji."""
        if self._console is None:
            try:
                self._console = _rich(stderr=self._to_stderr)
            except ImportError:
                self._console = _Plain(stderr=self._to_stderr)
        return self._console

    def print(self, *words: Any, style: str = "", end: str = "\n", markup: bool = False) -> None:
        """Print texts as they are, or tables.

        Args:
            words: Texts, or what rich can render.
            style: Of a terminal.
            end: What comes behind.
            markup: For texts that are ours.
        """
        if self._plain() and all(isinstance(word, str) for word in words):
            self._write(" ".join(words) + end)
            return
        shown = [visible(word) if isinstance(word, str) else word for word in words]
        self.console().print(*shown, style=style or None, end=end, markup=markup)

    def write(self, data: bytes, *, more: bool = False) -> None:
        """Pass on what a program wrote: byte for byte, but for a terminal as visible text.

        Args:
            data: All of it, or a piece.
            more: Another piece follows.
        """
        stream = self._stream()
        if stream.isatty():
            if self._decoder is None:
                letters = codecs.getincrementaldecoder("utf-8")("backslashreplace")
                self._decoder = io.IncrementalNewlineDecoder(letters, translate=True)
            self.print(self._decoder.decode(data, final=not more), end="")
            return
        stream.flush()
        stream.buffer.write(data)
        stream.flush()

    def status(self, text: str) -> AbstractContextManager[Any]:
        """Show that something takes a while."""
        from rich.text import Text  # noqa: PLC0415 - a plain text would be taken as markup

        status: AbstractContextManager[Any] = self.console().status(Text(visible(text)))
        return status

    def __getattr__(self, name: str) -> Any:
        return getattr(self.console(), name)

    def _plain(self) -> bool:
        return not self._to_stderr and not self.console().is_terminal

    def _stream(self) -> Any:
        return sys.stderr if self._to_stderr else sys.stdout

    def _write(self, text: str) -> None:
        stream = self._stream()
        try:
            stream.write(text)
        except UnicodeEncodeError:  # letters that this locale does not have, or halves of one
            encoding = stream.encoding
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()


def _rich(*, stderr: bool) -> Any:
    from rich.console import Console  # noqa: PLC0415 - that is what we are for
    from rich.segment import Segment  # noqa: PLC0415

    class Tame(Console):
        """Shows what a terminal would obey in tables, too."""

        def render(self, renderable: Any, options: Any = None) -> Any:
            for part in super().render(renderable, options):
                yield part if part.control else Segment(visible(part.text), part.style)

    return Tame(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


class _Plain:
    """As much of a console as programs of the guest use."""

    is_terminal = False

    def __init__(self, *, stderr: bool) -> None:
        self._to_stderr = stderr

    def print(self, *words: object, end: str = "\n", **_: object) -> None:
        print(*words, end=end, file=sys.stderr if self._to_stderr else sys.stdout)

    def print_exception(self) -> None:
        traceback.print_exc()
