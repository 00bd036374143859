# SPDX-License-Identifier: Apache-2.0
"""What an HTTP client of ours sends through, and what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Headers:
    """Headers of an answer, in order; names in any case."""

    def __init__(self, items: Sequence[tuple[str, str]] = ()) -> None:
        self._items = tuple((name.lower(), value) for name, value in items)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a header."""
        return next(iter(self.get_list(name)), default)

    def get_list(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for each, value in self._items if each == name.lower()]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, headers in order, body."""

    status: int
    headers: Headers
    body: bytes


class TooMuchError(Exception):
    """An answer is larger than the limit."""


class NotConnectedError(Exception):
    """There was no connection, so that nothing was sent.

    Attributes:
        reason: An OSError, or the resolver's UnicodeError.
    """

    def __init__(self, reason: OSError | UnicodeError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class StrangerError(Exception):
    """The server's TLS certificate is not the one that it is known by."""


class Transport(Protocol):
    """The way to one server."""

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes, limit: int
    ) -> Answer:
        """Send one request and read its whole answer, whatever the status.

        Args:
            method: HTTP method.
            target: Path and query.
            headers: Of the request, without those about its length and host.
            content: Body.
            limit: Most bytes of the answer's body.

        Raises:
            NotConnectedError: there is no connection; nothing was sent.
            OSError: the network failed.
            StrangerError: the server is another one; nothing was sent.
            TooMuchError: the answer is larger.
        """
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...
