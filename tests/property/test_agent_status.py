# SPDX-License-Identifier: Apache-2.0
"""An agent's word on its VM's console: what is written is read, and nothing else is."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.agent.report import Happening, Level, Status
from cocos.agent.status import SaysStatus
from cocos.manager.console import Console
from cocos.wire.manifest.agent_status import MAX_TEXT, AgentStatus

STATUSES = st.builds(
    AgentStatus,
    problem=st.text(max_size=700),
    computation=st.text(max_size=40),
    outcome=st.sampled_from(["", "completed", "failed"]),
    reason=st.text(max_size=700),
)
JOURNAL = "[   61.408219] cocos-agent[287]: "


@given(STATUSES)
def test_what_is_written_is_read(status: AgentStatus) -> None:
    line = status.to_line()
    assert line.isprintable()
    read = AgentStatus.of_line(line)
    assert read is not None
    assert read == AgentStatus.of_line(JOURNAL + line)
    assert read.outcome == status.outcome
    assert len(read.problem) <= MAX_TEXT
    if len(status.reason) <= MAX_TEXT and status.reason.isprintable():
        assert read.reason == status.reason


@given(st.text())
def test_any_other_line_says_nothing(line: str) -> None:
    assert AgentStatus.of_line(line) is None


LINE = AgentStatus(computation="c-1", outcome="completed").to_line()


@pytest.mark.parametrize(
    "line",
    [
        f"x{LINE}",
        f"timestamp=2026 level=info event={LINE}",
        f"[   61.4] kernel: {LINE}",
        f"[   61.4] other[287]: {LINE}",
        f"{JOURNAL}{JOURNAL}{LINE}",
        f"{LINE} ",
        f"{LINE}{LINE}",
        LINE.replace("completed", "triumphant"),
        LINE.replace('"c-1"', "7"),
        LINE.replace("{", '{"state":"removed",'),
        LINE.replace("c-1", "c" * (MAX_TEXT + 1)),
        "cocos-agent: status {}{}",
        "cocos-agent: status []",
        "cocos-agent: status " + "[" * 5000,
        "cocos-agent: status {" + '"problem":' * 5000 + "}",
    ],
)
def test_what_only_looks_like_it_says_nothing(line: str) -> None:
    assert AgentStatus.of_line(line) is None


@given(st.lists(st.tuples(st.sampled_from(["cocos-agent", "guest", "coco-keyprovider"]), STATUSES)))
def test_a_console_hears_the_agent_alone(said: list[tuple[str, AgentStatus]]) -> None:
    heard: list[AgentStatus] = []
    with TemporaryDirectory() as folder:
        console = Console(Path(folder) / "console.log", on_status=heard.append)
        console.open()
        for program, status in said:
            console.write(program, status.to_line())
            console.write(program, f"x{status.to_line()}")
        console.close()
    wanted = [AgentStatus.of_line(each.to_line()) for by, each in said if by != "coco-keyprovider"]
    assert heard == wanted


class Nobody:
    def event(self, happening: Happening) -> None: ...

    def log(self, computation: str, level: Level, message: str) -> None: ...


def test_an_agent_says_how_far_it_is() -> None:
    lines: list[str] = []
    says = SaysStatus(Nobody(), lines.append)
    says.cvms("nobody answers")
    says.cvms("nobody answers")  # again: a manager may have been started since
    says.cvms("")
    says.cvms("")
    details: dict[str, Any] = {"reason": "exit code 3", "tail": "the data"}
    says.event(Happening("c-1", "Running", Status.FAILED, details))
    says.event(Happening("c-1", "Failed", Status.FAILED, details))
    says.cvms("gone")
    says.event(Happening("c-2", "Complete", Status.COMPLETED))
    assert [AgentStatus.of_line(line) for line in lines] == [
        AgentStatus(problem="CVMS unreachable: nobody answers"),
        AgentStatus(problem="CVMS unreachable: nobody answers"),
        AgentStatus(),
        AgentStatus("", "c-1", "failed", "exit code 3"),
        AgentStatus("CVMS unreachable: gone", "c-1", "failed", "exit code 3"),
        AgentStatus("CVMS unreachable: gone", "c-2", "completed", ""),
    ]
    assert "the data" not in "".join(lines)
