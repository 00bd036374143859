# SPDX-License-Identifier: Apache-2.0
"""The agent's states, pure: a table of what may follow what.

An event that the table does not have is an error for whoever sent it; the machine stays
where it is and goes on.
"""

import enum

from cocos.errors import StateError


class State(enum.StrEnum):
    """Names as they are on the wire in ``AgentStateRes.state``."""

    IDLE = "Idle"
    RECEIVING_MANIFEST = "ReceivingManifest"
    RECEIVING_ALGORITHM = "ReceivingAlgorithm"
    RECEIVING_DATA = "ReceivingData"
    RUNNING = "Running"
    CONSUMING_RESULTS = "ConsumingResults"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Event(enum.StrEnum):
    """What moves the machine."""

    START = "Start"
    MANIFEST_RECEIVED = "ManifestReceived"
    ALGORITHM_RECEIVED = "AlgorithmReceived"
    DATA_RECEIVED = "DataReceived"
    RUN_COMPLETE = "RunComplete"
    RESULTS_CONSUMED = "ResultsConsumed"
    RUN_FAILED = "RunFailed"
    RESULT_FOUND = "ResultFound"
    STOPPED = "Stopped"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.START): State.RECEIVING_MANIFEST,
    (State.RECEIVING_MANIFEST, Event.MANIFEST_RECEIVED): State.RECEIVING_ALGORITHM,
    (State.RECEIVING_ALGORITHM, Event.ALGORITHM_RECEIVED): State.RECEIVING_DATA,
    (State.RECEIVING_DATA, Event.DATA_RECEIVED): State.RUNNING,
    (State.RUNNING, Event.RUN_COMPLETE): State.CONSUMING_RESULTS,
    (State.CONSUMING_RESULTS, Event.RESULTS_CONSUMED): State.COMPLETE,
    # Of an agent before us, which had run it.
    (State.RECEIVING_MANIFEST, Event.RESULT_FOUND): State.CONSUMING_RESULTS,
    (State.RECEIVING_ALGORITHM, Event.RUN_FAILED): State.FAILED,
    (State.RECEIVING_DATA, Event.RUN_FAILED): State.FAILED,
    (State.RUNNING, Event.RUN_FAILED): State.FAILED,
    **{(state, Event.STOPPED): State.IDLE for state in State},
}


class Machine:
    """Where one agent is.

    Attributes:
        state: The present state.
    """

    def __init__(self) -> None:
        self.state = State.IDLE

    def fire(self, event: Event, *, datasets: bool = True) -> State:
        """Move, and return the new state.

        Args:
            event: What happened.
            datasets: Whether the computation has any; without, ``ReceivingData`` is skipped.

        Raises:
            StateError: the event is not allowed now; nothing has changed.
        """
        target = TRANSITIONS.get((self.state, event))
        if target is None:
            raise StateError(f"the agent is in state {self.state} and does not expect {event}")
        if target is State.RECEIVING_DATA and not datasets:
            target = State.RUNNING
        self.state = target
        return target
