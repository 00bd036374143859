# SPDX-License-Identifier: Apache-2.0
"""What cvms-test shows: a line for everything, with its time, in order, reasons once."""

import datetime as dt
from collections.abc import Iterator

import pytest

from cocos._types import JsonObject
from cocos.cli.host.cvms_test import Timeline

START = dt.datetime(2026, 12, 1, 23, 59, 58, tzinfo=dt.UTC)


def seconds() -> Iterator[dt.datetime]:
    moment = START
    while True:
        yield moment
        moment += dt.timedelta(seconds=1)


def printed(capsys: pytest.CaptureFixture[str], *entries: JsonObject) -> list[str]:
    moments = seconds()
    timeline = Timeline(lambda: next(moments))
    for entry in entries:
        timeline.show(entry)
    return capsys.readouterr().out.splitlines()


def event(name: str, status: str, **more: object) -> JsonObject:
    return {
        "time": "1999-01-01T00:00:00",  # what an agent says of its clock
        "event": name,
        "status": status,
        "computation": "1",
        "originator": "agent",
        **more,
    }


def test_every_line_has_the_time_at_which_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(
        capsys,
        {"agent": "vm-1", "connected": True},
        {"accepted": True, "error": ""},
        event("Running", "InProgress"),
        {"time": "1999-01-01T00:00:00", "log": "a line", "level": "INFO", "computation": "1"},
    ) == [
        "23:59:58Z agent vm-1 connected",
        "23:59:59Z manifest accepted",
        "00:00:00Z Running: InProgress",
        "00:00:01Z   INFO  a line",
    ]


def test_a_reason_stands_once(capsys: pytest.CaptureFixture[str]) -> None:
    why = {"reason": "the KBS said no"}
    lines = printed(
        capsys,
        event("ReceivingAlgorithm", "Failed", details=why),
        event("Failed", "Failed", details={**why, "step": "algorithm"}),
    )
    assert [line[10:] for line in lines] == [
        "ReceivingAlgorithm: Failed",
        "  reason: the KBS said no",
        "Failed: Failed",
        "  step: algorithm",
    ]


def test_another_reason_is_said_and_so_is_that_of_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = printed(
        capsys,
        event("Failed", "Failed", details={"reason": "x"}, other=True),
        event("Failed", "Failed", details={"reason": "x"}),
        event("Failed", "Failed", details={"reason": "y"}),
        event("Running", "InProgress"),
        event("Failed", "Failed", details={"reason": "y"}),
    )
    assert [line[10:] for line in told if "reason" in line] == [
        f"  reason: {text}" for text in ("x", "x", "y", "y")
    ]


@pytest.mark.parametrize("breaks", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028"])
def test_no_agent_forges_a_line(capsys: pytest.CaptureFixture[str], breaks: str) -> None:
    forged = f"x{breaks}12:00:00Z sealed result stored in /etc"
    moments = seconds()
    timeline = Timeline(lambda: next(moments))
    timeline.show(event(forged, "Failed", details={"reason": forged}))
    timeline.show({"agent": forged, "connected": True})
    timeline.show({"log": forged, "level": "INFO"})
    for line in capsys.readouterr().out.splitlines():
        assert not line.startswith("12:"), line
