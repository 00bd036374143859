# SPDX-License-Identifier: Apache-2.0
"""A process that evaluates policies, one after the other, within limits.

Requests and answers are JSON after their length (4 bytes, big-endian) on the socket that is
standard input. A policy and its base documents are sent once and known by their digests then.

Only what is needed here is imported: a worker must start fast.
"""

import contextlib
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from typing import Any, BinaryIO, Final, TypeVar

from cocos._recent import Recent
from cocos.errors import CocosError, FormatError
from cocos.policy.documents import BaseDocuments, Kind
from cocos.policy.engine import Policy
from cocos.policy.explain import explain

LENGTH: Final = struct.Struct(">I")
MEMORY_BYTES: Final = 512 * 2**20
COMPILE_SECONDS: Final = 10.0
EVALUATE_SECONDS: Final = 1.0
MAX_ANSWER_BYTES: Final = 2**20
KEPT: Final = 64
"""Policies, and sets of base documents, that a worker remembers."""

_PAGE = resource.getpagesize()

T = TypeVar("T")


def _recall(kept: Recent[str, T], digest: str, make: Callable[[], T] | None) -> T | None:
    found = kept.get(digest)
    if found is None and make is not None:
        found = make()
        kept.put(digest, found)
    return found


class Worker:
    """Answers requests."""

    def __init__(self, written: Callable[[], int]) -> None:
        """Make a worker.

        Args:
            written: Returns how much the engine has written to standard error. It says
                nowhere else that it cannot order the statements of a policy, of which it
                then believes that they are undefined.
        """
        self._written = written
        self._policies: Recent[str, Policy] = Recent(KEPT)
        self._bases: Recent[str, BaseDocuments] = Recent(KEPT)

    def answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Return ``values``, ``findings``, ``warnings`` or ``unknown``.

        Or an ``error`` with its ``message`` and ``hint``.
        """
        text, data = ask["text"], ask["data"]
        try:
            if ask["kind"] is not None:
                from cocos.policy.review import review  # noqa: PLC0415 - few ever need it

                with _processor_time(COMPILE_SECONDS), self._silence():
                    return {"warnings": review(text, Kind(ask["kind"]))}
            with _processor_time(COMPILE_SECONDS), self._silence():
                policy = _recall(
                    self._policies, ask["policy"], None if text is None else lambda: Policy(text)
                )
                base = _recall(
                    self._bases,
                    ask["base"],
                    None if data is None else lambda: BaseDocuments.from_text(data),
                )
                if policy is None or base is None:
                    return {"unknown": True}
            how = {"base": base, "request": ask["request"]}
            if ask["explain"]:
                # It minds the time itself, between the questions that it asks.
                with _processor_time(COMPILE_SECONDS):
                    found = explain(policy, ask["rules"], ask["document"], **how)
                    return {"findings": [asdict(finding) for finding in found]}
            with _processor_time(EVALUATE_SECONDS), self._silence():
                return {"values": policy.evaluate(ask["rules"], ask["document"], **how)}
        except CocosError as error:
            kind = "format" if isinstance(error, FormatError) else "config"
            return {"error": kind, "message": error.message, "hint": error.hint}

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        before = self._written()
        yield
        if self._written() != before:
            self._policies = Recent(KEPT)  # it says so once
            raise FormatError(
                "the policy does not compile: the engine cannot tell in which order its "
                "statements hold",
                hint="bind each variable above the statements that read it",
            )


@contextlib.contextmanager
def _processor_time(seconds: float) -> Iterator[None]:
    """End this process if the block needs more processor time, however busy the machine is."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more, or so much is kept that a new worker is due."""
    worker = Worker(lambda: os.lseek(sys.stderr.fileno(), 0, os.SEEK_CUR))
    while length := requests.read(LENGTH.size):
        ask = json.loads(requests.read(*LENGTH.unpack(length)))
        answer = json.dumps(worker.answer(ask)).encode("ascii")
        if len(answer) > MAX_ANSWER_BYTES:
            message = f"the policy's result is larger than {MAX_ANSWER_BYTES} bytes"
            answer = json.dumps({"error": "config", "message": message, "hint": None}).encode()
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()
        if _pages(1) * _PAGE > MEMORY_BYTES // 2:
            return


def _pages(field: int) -> int:
    """Return the size of this process (0), or its part in memory (1)."""
    return int(os.pread(_statm(), 128, 0).split()[field])


@cache
def _statm() -> int:
    # Read at each answer: to open it would cost as much as to evaluate a small policy.
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def main() -> None:
    """Be a worker on the socket that is standard input."""
    # What is mapped at import, such as reserved address space, does not count.
    resource.setrlimit(resource.RLIMIT_AS, (_pages(0) * _PAGE + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Whatever the engine may write to standard output must not be taken for an answer.
    wire, null = os.dup(sys.stdin.fileno()), os.open(os.devnull, os.O_RDWR)
    for standard in (sys.stdin, sys.stdout):
        os.dup2(null, standard.fileno())
    os.dup2(os.memfd_create("stderr"), sys.stderr.fileno())
    with os.fdopen(wire, "rb") as requests, os.fdopen(os.dup(wire), "wb") as answers:
        try:
            serve(requests, answers)
        except BaseException:  # noqa: BLE001 - a panic is one
            # The engine has panicked, or something else that nobody goes on after.
            os.abort()


if __name__ == "__main__":
    main()
