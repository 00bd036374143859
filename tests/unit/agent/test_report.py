# SPDX-License-Identifier: Apache-2.0
"""Events, details of failures, and text cut to size."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cocos.agent.report import Level, Lines, Place, failure, pieces
from cocos.errors import ComputationError, IntegrityError, UnreachableError

DIGEST = "sha256:" + "ab" * 32


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(4, 600))
def test_pieces_fit_and_lose_nothing(text: str, limit: int) -> None:
    cut = list(pieces(text, limit))
    assert "".join(cut) == text
    assert all(len(piece.encode()) <= limit for piece in cut)


@given(st.binary(), st.lists(st.integers(1, 50)))
def test_lines_do_not_depend_on_how_bytes_arrive(data: bytes, cuts: list[int]) -> None:
    def read(chunks: list[bytes]) -> list[str]:
        lines = Lines()
        found = [line for chunk in chunks for line in lines.feed(chunk)]
        return [*found, *lines.end()]

    chunks = []
    rest = data
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    assert read([*chunks, rest]) == read([data])


def test_a_line_without_end_is_bounded() -> None:
    lines = Lines()
    assert sum(len(line) for _ in range(100) for line in lines.feed(b"x" * 100)) > 9_000
    assert len(list(lines.end())) <= 1


@pytest.mark.parametrize("message", [f"layer 2 ({DIGEST}) is bad", f"x: layer {DIGEST}: bad"])
def test_the_layer_is_named(message: str) -> None:
    place = Place("fetch", "datasets[1]", "docker://h:1/a")
    assert failure(place, IntegrityError(message)) == {
        "step": "fetch",
        "resource": "datasets[1]",
        "url": "docker://h:1/a",
        "layer": DIGEST,
        "code": "integrity",
        "reason": message,
    }


def test_hint_exit_code_and_tail() -> None:
    details = failure(Place("measure"), UnreachableError("gone", hint="look"))
    assert details == {"step": "measure", "code": "unreachable", "reason": "gone", "hint": "look"}
    details = failure(Place("run"), ComputationError("failed", exit_status=3, tail="last"))
    assert (details["exit_code"], details["tail"]) == (3, "last")


def test_levels() -> None:
    assert Level.parse("") is Level.INFO
    assert Level.parse("Warning") is Level.parse("warn") is Level.WARN
