# SPDX-License-Identifier: Apache-2.0
"""What a KBS noted about a refusal, for a person to read, or for grep."""

from collections.abc import Iterator
from typing import Final

from cocos._types import JsonObject
from cocos.cli._screen import visible
from cocos.policy.appraisal import STATUS

_HEAD: Final = ("time", "step", "message", "hint")


def lines(denial: JsonObject) -> Iterator[str]:
    """Yield lines, each value on one of its own and whole, what did hold at the end."""
    for name in _HEAD:
        if denial.get(name):
            yield _line(f"{name:>8}: {denial[name]}")
    findings = denial.get("findings") or ()
    held = [finding for finding in findings if _held(finding)]
    for finding in findings:
        if finding not in held:
            yield ""
            yield from _finding(finding)
    if held:
        yield ""
        yield "What held:"
        for finding in held:
            yield from _finding(finding)


def _finding(finding: JsonObject) -> Iterator[str]:
    # Guests chose some of these words.
    yield _line(f"{finding.get('check', '')}: {finding.get('problem', '')}")
    for name in ("actual", "expected"):
        if finding.get(name):
            yield _line(f"{name:>10}: {finding[name]}")


def _line(text: str) -> str:
    return visible(text).replace("\n", "\\n")


def _held(finding: JsonObject) -> bool:
    """Tell whether it is a fact beside the failures: an appraisal that asks for nothing more."""
    return str(finding.get("check")).endswith(f".{STATUS}") and not finding.get("expected")
