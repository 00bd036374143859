# SPDX-License-Identifier: Apache-2.0
"""Messages for the CVMS, kept in order until the stream has taken them.

The stream may break at any time, and nobody acknowledges anything on it: what gRPC has
taken may still be lost. Events and the result of a computation are therefore kept and
sent again over every later stream, from the first on and in their order, until the
computation is forgotten; a CVMS knows them by their time. A result is made of many
messages, which belong on one stream.

The box is bounded: log lines give way first, oldest first.
"""

import asyncio
import collections
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cocos.wire._generated import cvms_pb2 as pb

MAX_PARCELS = 10_000
CHUNK_BYTES = 2**20


@dataclass(eq=False, slots=True)
class Parcel:
    """Messages that go over one stream together.

    Attributes:
        messages: Makes them, each time anew.
        droppable: Whether it may give way to others.
        keep: Whether it is sent again over later streams.
        taken: Set when a stream has taken all of them.
    """

    messages: Callable[[], Iterable[pb.ClientStreamMessage]]
    droppable: bool = False
    keep: bool = False
    taken: asyncio.Event = field(default_factory=asyncio.Event)


class Outbox:
    """A bounded queue of parcels for one sender at a time.

    Args:
        limit: Most parcels.
    """

    def __init__(self, limit: int = MAX_PARCELS) -> None:
        self._limit = limit
        self._parcels: collections.deque[Parcel] = collections.deque()
        self._filled = asyncio.Event()
        self._sent: list[Parcel] = []
        self._result: Parcel | None = None
        self.dropped = 0
        """Parcels that had to give way."""

    def put(
        self, message: pb.ClientStreamMessage, *, droppable: bool = False, keep: bool = False
    ) -> None:
        """Add a message at the end."""
        self._add(Parcel(lambda: (message,), droppable, keep))

    def put_result(self, computation_id: str, data: bytes) -> Parcel:
        """Add a result at the end, in chunks."""
        self._result = Parcel(lambda: result_chunks(computation_id, data), keep=True)
        self._add(self._result)
        return self._result

    def forget(self) -> None:
        """Drop what was kept of a computation, and its result, sent or not."""
        self._sent.clear()
        if self._result is not None and self._result in self._parcels:
            self._parcels.remove(self._result)
        self._result = None

    def reopen(self) -> None:
        """Begin with a new stream."""
        self._parcels.extendleft(reversed(self._sent))
        self._sent.clear()
        if self._parcels:
            self._filled.set()

    async def next(self) -> Parcel:
        """Wait for the first parcel and return it; it stays until :meth:`done`."""
        while not self._parcels:
            self._filled.clear()
            await self._filled.wait()
        return self._parcels[0]

    def done(self, parcel: Parcel) -> None:
        """Put a parcel aside that a stream has taken."""
        parcel.taken.set()
        if parcel in self._parcels:
            self._parcels.remove(parcel)
            if parcel.keep:
                self._sent.append(parcel)

    def __len__(self) -> int:
        return len(self._parcels)

    def _add(self, parcel: Parcel) -> None:
        if len(self._parcels) >= self._limit:
            self.dropped += 1
            # The first one may be on its way: it is not taken from under the sender.
            others = [each for each in list(self._parcels)[1:] if each is not self._result]
            victim = next((each for each in others if each.droppable), None)
            if victim is None and parcel.droppable:
                return
            self._parcels.remove(victim or others[0])
        self._parcels.append(parcel)
        self._filled.set()


def result_chunks(computation_id: str, data: bytes) -> Iterator[pb.ClientStreamMessage]:
    """Cut a result into messages of at most :data:`CHUNK_BYTES`; the last says so."""
    starts = range(0, max(len(data), 1), CHUNK_BYTES)
    for start in starts:
        yield pb.ClientStreamMessage(
            resultChunk=pb.ResultChunk(
                computation_id=computation_id,
                data=data[start : start + CHUNK_BYTES],
                is_last=start == starts[-1],
            )
        )
