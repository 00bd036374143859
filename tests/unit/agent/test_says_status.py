# SPDX-License-Identifier: Apache-2.0
"""What an agent says to whoever runs its VM."""

from typing import Any

from cocos.agent.report import Happening, Status
from cocos.agent.states import State
from cocos.agent.status import SaysStatus
from cocos.wire.manifest.agent_status import AgentStatus


def test_a_result_that_nobody_takes_is_said_until_somebody_has() -> None:
    lines: list[str] = []
    ignored: Any = type("Ignored", (), {"event": lambda *_: None})()
    says = SaysStatus(ignored, lines.append)

    def problem() -> str:
        status = AgentStatus.of_line(lines[-1])
        assert status is not None
        return status.problem

    details = {"reason": "it is kept"}
    says.event(Happening("1", State.CONSUMING_RESULTS, Status.WARNING, details))
    assert problem() == "it is kept"
    says.cvms("gone")
    assert problem() == "CVMS unreachable: gone"
    says.cvms("")
    assert problem() == "it is kept"
    says.event(Happening("1", State.COMPLETE, Status.COMPLETED))
    assert problem() == ""
