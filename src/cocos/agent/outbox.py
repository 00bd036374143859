# SPDX-License-Identifier: Apache-2.0
"""Messages for the CVMS, kept in order until the stream has taken them.

The stream may break at any time, and what gRPC has taken may still be lost. Events and the
result of a computation are therefore kept and sent again over every later stream, from the
first on and in their order: the result until somebody says that it is stored, by its hash,
the events until somebody says that how the computation ended is stored. A receipt counts for
the computation that it names, by id and manifest, and for nothing that was not sent. A result
is made of many messages, which belong on one stream.

The box is bounded: log lines give way first, oldest first.
"""

import asyncio
import collections
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cocos.agent.kept import Kept
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.identity import Identity

MAX_PARCELS = 10_000
CHUNK_BYTES = 2**20


@dataclass(eq=False, slots=True)
class Parcel:
    """Messages that go over one stream together.

    Attributes:
        messages: Makes them, each time anew.
        droppable: Whether it may give way to others.
        of: The computation for which it is kept and sent again over later streams, or None.
        is_ending: Whether it says how that computation ended.
        stored: Set when somebody has stored it.
    """

    messages: Callable[[], Iterable[pb.ClientStreamMessage]]
    droppable: bool = False
    of: Identity | None = None
    is_ending: bool = False
    stored: asyncio.Event = field(default_factory=asyncio.Event)


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
        self._result_digest = b""
        self.dropped = 0
        """Parcels that had to give way."""

    def put(
        self,
        message: pb.ClientStreamMessage,
        *,
        droppable: bool = False,
        of: Identity | None = None,
        is_ending: bool = False,
    ) -> None:
        """Add a message at the end."""
        self._add(Parcel(lambda: (message,), droppable, of, is_ending))

    def put_result(self, kept: Kept) -> Parcel:
        """Add a result at the end, in chunks."""
        self._result = Parcel(lambda: result_chunks(kept), of=kept.identity)
        self._result_digest = kept.digest()
        self._add(self._result)
        return self._result

    @property
    def result(self) -> Parcel | None:
        """The result that nobody has stored yet."""
        return self._result

    def result_stored(self, identity: Identity, digest: bytes) -> bool:
        """Somebody says to have stored a result; tell whether it is ours.

        Who has not got all of it does not know its hash.
        """
        result = self._result
        if result is None or result.of != identity or digest != self._result_digest:
            return False
        self._remove([result])
        self._result = None
        result.stored.set()
        return True

    def ending_stored(self, identity: Identity) -> bool:
        """Somebody says to have stored how a computation ended; tell whether that was sent."""
        # The first one may be on its way, and this the answer to it.
        sent = [*self._sent, *list(self._parcels)[:1]]
        ours = [each for each in sent if each.of == identity and each is not self._result]
        if not any(each.is_ending for each in ours):
            return False
        self._remove(ours)
        return True

    def forget(self) -> None:
        """Drop what was kept of a computation, and its result, sent or not."""
        self._remove([*self._sent, *([self._result] if self._result else [])])
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
        if parcel in self._parcels:
            self._parcels.remove(parcel)
            if parcel.of is not None:
                self._sent.append(parcel)

    def __len__(self) -> int:
        return len(self._parcels)

    def _remove(self, parcels: list[Parcel]) -> None:
        self._sent = [each for each in self._sent if each not in parcels]
        for parcel in parcels:
            if parcel in self._parcels:
                self._parcels.remove(parcel)

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


def result_chunks(kept: Kept) -> Iterator[pb.ClientStreamMessage]:
    """Cut a result into messages of at most :data:`CHUNK_BYTES`; the last says so."""
    data = kept.package
    starts = range(0, max(len(data), 1), CHUNK_BYTES)
    for start in starts:
        yield pb.ClientStreamMessage(
            resultChunk=pb.ResultChunk(
                computation_id=kept.identity.id,
                manifest=kept.identity.digest,
                data=data[start : start + CHUNK_BYTES],
                is_last=start == starts[-1],
            )
        )
