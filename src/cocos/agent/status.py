# SPDX-License-Identifier: Apache-2.0
"""What the agent says of itself to whoever runs its VM, beside what it tells the CVMS."""

from collections.abc import Callable
from typing import Final, Literal

from msgspec.structs import replace

from cocos.agent.report import Happening, Level, Reporter, Status
from cocos.agent.states import State
from cocos.wire.manifest.agent_status import AgentStatus

_OUTCOMES: Final[dict[tuple[str, Status], Literal["completed", "failed"]]] = {
    (State.COMPLETE, Status.COMPLETED): "completed",
    (State.FAILED, Status.FAILED): "failed",
}


class SaysStatus:
    """A reporter that also says how a computation ended; the rest it only hands on.

    Args:
        reporter: Who is told everything.
        say: Gets lines for the VM's console.
    """

    def __init__(self, reporter: Reporter, say: Callable[[str], object]) -> None:
        self._reporter = reporter
        self._say = say
        self._status = AgentStatus()
        self._said = ""
        self._warning = ""  # holds until the end, whatever becomes of the CVMS

    def event(self, happening: Happening) -> None:
        """See :class:`cocos.agent.report.Reporter`."""
        self._reporter.event(happening)
        outcome = _OUTCOMES.get((happening.type, happening.status))
        if outcome is not None:
            reason = str(happening.details.get("reason", ""))
            ended = {"computation": happening.computation, "outcome": outcome, "reason": reason}
            if self._status.problem == self._warning:
                ended["problem"] = ""
            self._warning = ""
            self._change(replace(self._status, **ended))
        elif happening.status is Status.WARNING:
            self._warning = str(happening.details.get("reason", ""))
            self._change(replace(self._status, problem=self._warning))

    def log(self, computation: str, level: Level, message: str) -> None:
        """See :class:`cocos.agent.report.Reporter`."""
        self._reporter.log(computation, level, message)

    def cvms(self, problem: str) -> None:
        """Say that the CVMS cannot be reached, and why, or with an empty text that it can."""
        if problem:  # again, too: a manager that was started since has not heard it
            self._said = ""
        problem = f"CVMS unreachable: {problem}" if problem else self._warning
        self._change(replace(self._status, problem=problem))

    def _change(self, status: AgentStatus) -> None:
        self._status = status
        line = status.to_line()
        if line != self._said:
            self._said = line
            self._say(line)
