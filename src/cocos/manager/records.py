# SPDX-License-Identifier: Apache-2.0
"""What the manager remembers of a VM: its record, its states and their order."""

import datetime as dt
import enum
from typing import ClassVar

import msgspec

from cocos.errors import FormatError, StateError
from cocos.wire import json


class VmState(enum.StrEnum):
    """Life of a VM; the last five are ends."""

    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"  # its computation has ended; it was told to stay, or will end in a moment
    STOPPING = "stopping"
    ENDED = "ended"  # with its computation, in order
    STOPPED = "stopped"  # ended by itself or with the manager, in order
    FAILED = "failed"  # a program of it ended that must not
    EXPIRED = "expired"  # its time to live was over
    LOST = "lost"  # the manager was gone without having stopped it

    @property
    def live(self) -> bool:
        """Whether it counts against the limit: something of it may run."""
        return self in _NEXT


_ENDS = frozenset({VmState.ENDED, VmState.STOPPED, VmState.FAILED, VmState.EXPIRED, VmState.LOST})
_NEXT = {
    VmState.STARTING: frozenset({VmState.RUNNING, VmState.STOPPING}) | _ENDS,
    VmState.RUNNING: frozenset({VmState.DONE, VmState.STOPPING}) | _ENDS,
    VmState.DONE: frozenset({VmState.STOPPING}) | _ENDS,
    VmState.STOPPING: _ENDS,
}


class VmRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One VM as it is kept on disk. Holds no secret.

    Attributes:
        id: UUID, also the name of its folder.
        backend: Name of the backend that runs it.
        state: Where it is in its life.
        created: When it was asked for.
        cvms: ``host:port`` that its agent dials.
        expires: When its time to live is over, if it has one.
        forwarded_port: Port on this host that leads to the agent, or empty.
        reason: Why it ended, if it ended by itself.
        outcome: How its computation ended, as its agent says, or empty.
    """

    id: str
    backend: str
    state: VmState
    created: dt.datetime
    cvms: str
    expires: dt.datetime | None = None
    forwarded_port: str = ""
    reason: str = ""
    outcome: str = ""

    FILE: ClassVar[str] = "vm.json"

    def to(self, state: VmState, reason: str = "") -> "VmRecord":
        """Return the record in the next state.

        Raises:
            StateError: there is no way from the present state to that one.
        """
        if state not in _NEXT.get(self.state, ()):
            raise StateError(f"VM {self.id} is {self.state} and cannot become {state}")
        return msgspec.structs.replace(self, state=state, reason=reason)

    def to_json(self) -> bytes:
        """Encode for the disk."""
        return json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> "VmRecord":
        """Decode what :meth:`to_json` wrote.

        Raises:
            FormatError: not such a record.
        """
        record: VmRecord = json.decode(data, cls, "the record of a VM")
        if record.created.tzinfo is None or (record.expires and record.expires.tzinfo is None):
            raise FormatError("the record of a VM has a time without zone")
        return record
