# SPDX-License-Identifier: Apache-2.0
"""Request bodies within limits: the size and time of each, and the memory of all together."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from starlette.types import Message, Receive

from cocos.errors import CallerError, TooLargeError, TooManyRequestsError

SMALL_BYTES: Final = 64 * 2**10
"""So much of each body is not counted: small requests pass whatever large ones do."""

MAX_HELD_BYTES: Final = 256 * 2**20
"""Of all bodies that are arriving or are being worked on."""

_DRAIN_BYTES: Final = 64 * 2**20
_BUSY_SECONDS: Final = 1.0


@dataclass(slots=True)
class Call:
    """What is known of one request while it is answered."""

    began: float
    status: int = 0
    received: int = 0
    sent: int = 0
    held: int = 0
    body_ended: bool = False

    def saw(self, message: Message) -> None:
        """Note what has come from the client."""
        self.received += len(message.get("body", b""))
        self.body_ended = not message.get("more_body", False)


class Bodies:
    """The bodies of one server's requests.

    Args:
        max_bytes: Largest body.
        seconds: How long one may take to arrive.
        max_held: Memory for all of them.
    """

    def __init__(self, max_bytes: int, *, seconds: float, max_held: int = MAX_HELD_BYTES) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._max_held = max_held
        self._held = 0

    def check_declared(self, length: str) -> None:
        """Refuse a body before a byte of it is read.

        Args:
            length: Value of Content-Length.

        Raises:
            TooLargeError: it says to be too large.
        """
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large()

    def limited(self, receive: Receive, call: Call) -> Receive:
        """Return ``receive`` within the limits; :meth:`release` must follow.

        It raises:
            TooLargeError: the body is too large.
            TooManyRequestsError: all bodies together are.
            CallerError: it does not arrive in time.
        """
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def limited() -> Message:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                call.body_ended = True  # what did not come is not waited for again
                raise CallerError(
                    f"the request's body did not arrive within {self._seconds:g} s"
                ) from error
            call.saw(message)
            # Not by Content-Length alone: a chunked body has none.
            if call.received > self._max_bytes:
                raise self._too_large()
            self._hold(call)
            return message

        return limited

    def release(self, call: Call) -> None:
        """Give back the memory of a request that has been answered."""
        self._held -= call.held
        call.held = 0

    async def drain(self, receive: Receive, call: Call) -> None:
        """Throw away what a client still sends, within reason.

        Closing the connection on unread bytes resets it, and most clients then never see
        the answer.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while not call.body_ended and call.received < _DRAIN_BYTES:
                    call.saw(await receive())

    def _hold(self, call: Call) -> None:
        held = max(0, call.received - SMALL_BYTES)
        self._held += held - call.held
        call.held = held
        if held and self._held > self._max_held:
            raise TooManyRequestsError("too many large requests at once", retry_after=_BUSY_SECONDS)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"the request's body is larger than {self._max_bytes} bytes")
