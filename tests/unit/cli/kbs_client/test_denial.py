# SPDX-License-Identifier: Apache-2.0
"""A refusal as `kbs-client explain` shows it."""

from cocos.cli.kbs_client import denial

DIGEST = "ab" * 64


def finding(check: str, problem: str = "p", actual: str = "", expected: str = "") -> dict[str, str]:
    return {"check": check, "problem": problem, "actual": actual, "expected": expected}


def test_every_value_is_whole_and_what_held_is_apart() -> None:
    found = [
        finding("resource-policy", "does not allow a/b/c", "null", "true"),
        finding("cpu0.ear.status", "judged", 'affirming {"hardware":2}'),
        finding("gpu0.ear.status", "judged", "warning {}", "by default affirming"),
        finding("tpm.pcr11", "another image", DIGEST, f"one of {DIGEST}, {DIGEST}"),
        finding("policy", "line 3 is undefined"),
    ]
    said = list(denial.lines({"time": "t", "step": "s", "hint": None, "findings": found}))
    assert said == [
        "    time: t",
        "    step: s",
        "",
        "resource-policy: does not allow a/b/c",
        "    actual: null",
        "  expected: true",
        "",
        "gpu0.ear.status: judged",
        "    actual: warning {}",
        "  expected: by default affirming",
        "",
        "tpm.pcr11: another image",
        f"    actual: {DIGEST}",
        f"  expected: one of {DIGEST}, {DIGEST}",
        "",
        "policy: line 3 is undefined",
        "",
        "What held:",
        "cpu0.ear.status: judged",
        '    actual: affirming {"hardware":2}',
    ]


def test_a_guest_s_words_make_no_lines_and_no_colours() -> None:
    wild = "x\n  expected: true\x1b[31m\r\n"
    said = list(denial.lines({"message": wild, "findings": [finding(wild, wild, wild, wild)]}))
    assert [line for line in said if "\n" in line or "\x1b" in line or "\r" in line] == []
    assert len(said) == 5


def test_nothing_more_is_known() -> None:
    assert list(denial.lines({"id": "1"})) == []
