# SPDX-License-Identifier: Apache-2.0
"""Run a module's tests against its faults; started by ``mutants.py``, one process per module.

Reads a JSON order from standard input and writes to a pipe, fault by fault, a line with its
number in the order, what came of it, and the test that noticed. pytest collects once;
where its loop would run the tests, every fault gets a fork of the process. A fault in a
function replaces that function's code where it stands, whoever has imported it; one outside
of functions, or in one that no test enters once the module is imported, needs an interpreter
of its own kind, in which the module is imported with it.
"""

import ast
import contextlib
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

import pytest
from mutants import SURVIVED, UNREACHED
from mutations import outermost

TIMES: Final = 5  # as long as the tests take without the fault
CPU_SECONDS: Final = 10
WAIT_SECONDS: Final = 60  # on a busy machine
_KILLED, _SURVIVES, _BROKEN = 1, 0, 3
_KILLER: Final = "killer"  # file with the name of the test that noticed


@dataclass
class Order:
    """What to do; see ``mutants.py``."""

    source: str
    module: str
    tests: list[str]
    jobs: int
    answers: int
    faults: list[dict[str, Any]]


@dataclass
class Baseline:
    """What the tests do without a fault.

    Attributes:
        tests: Node id → the module's lines that it comes to.
        seconds: Node id → processor time.
    """

    tests: dict[str, list[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Forks:
    """So many children at a time, each with a limit."""

    def __init__(self, jobs: int, answers: int) -> None:
        self._jobs = jobs
        self._answers = answers
        self._running: dict[int, tuple[int, int, float, Path, str]] = {}
        self.settled: set[int] = set()
        self.killers: Counter[str] = Counter()
        """Node id → how many faults that test noticed."""

    def settle(self, number: int, outcome: str, killer: str = "") -> None:
        """Say what came of a fault."""
        self.settled.add(number)
        self.killers[killer] += 1
        os.write(self._answers, json.dumps([number, outcome, killer]).encode() + b"\n")

    def start(
        self, number: int, seconds: float, work: Callable[[], int], alive: str = SURVIVED
    ) -> None:
        """Have ``work`` done in a fork as soon as there is room; ``alive``: if nobody notices."""
        while len(self._running) >= self._jobs:
            self._reap()
        folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        limit = int(TIMES * seconds + CPU_SECONDS)
        pid = os.fork()
        if pid == 0:
            os.close(self._answers)
            _in_the_child(work, limit, folder)
        deadline = time.monotonic() + TIMES * limit + WAIT_SECONDS
        self._running[os.pidfd_open(pid)] = (pid, number, deadline, folder, alive)

    def wait(self) -> None:
        """Wait for all."""
        while self._running:
            self._reap()

    def _reap(self) -> None:
        now = time.monotonic()
        first = min(deadline for _, _, deadline, _, _ in self._running.values())
        ended, _, _ = select.select(list(self._running), [], [], max(0.0, first - now))
        late = [fd for fd, entry in self._running.items() if entry[2] <= time.monotonic()]
        for fd in {*ended, *late}:
            pid, number, _, folder, alive = self._running.pop(fd)
            # Its own children, too, if it was stopped in the middle of a test.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            os.close(fd)
            killer = ""
            with contextlib.suppress(FileNotFoundError):
                killer = (folder / _KILLER).read_text("utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            code = os.waitstatus_to_exitcode(status)
            outcome = alive if code == _SURVIVES else "killed"
            if fd in late and fd not in ended:
                outcome = "timeout"
            self.settle(number, outcome, killer)


def _in_the_child(work: Callable[[], int], limit: int, folder: Path) -> None:
    code = _BROKEN
    try:
        os.setsid()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        code = work()
    finally:
        os._exit(code)


class Campaign:
    """A pytest plugin: in place of its loop, all faults that are in functions."""

    def __init__(self, order: Order, forks: Forks) -> None:
        self.order = order
        self.forks = forks
        self.baseline: Baseline | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """See the base."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        import hypothesis  # noqa: PLC0415 - pytest wants to be the first

        hypothesis.settings.register_profile(
            "mutants",
            hypothesis.settings.default,
            database=None,
            derandomize=True,
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        )
        hypothesis.settings.load_profile("mutants")
        self.baseline = _baseline(session, self.order.source)
        functions = _live_functions(self.order.source)
        # Children that collect garbage copy no page of what is there already.
        gc.collect()
        gc.freeze()
        for number, fault in enumerate(self.order.faults):
            if fault["index"] >= 0:
                self._try(session, number, fault, functions.get(fault["index"], []))
        self.forks.wait()
        return True

    def _try(
        self,
        session: pytest.Session,
        number: int,
        fault: Mapping[str, Any],
        functions: Sequence[FunctionType],
    ) -> None:
        assert self.baseline is not None
        seconds = self.baseline.seconds
        code = _codes(fault["source"], self.order.source)[fault["index"]]
        if any(len(each.__code__.co_freevars) != len(code.co_freevars) for each in functions):
            return
        lines = _statement(Path(self.order.source).read_text("utf-8"), fault["line"])
        reached = self.baseline.tests
        items = [item for item in session.items if not lines.isdisjoint(reached[item.nodeid])]
        if not items or not functions:
            return  # what runs when the module is imported, if at all
        # What noticed it before, or other faults, may well notice it now.
        killers, killer = self.forks.killers, fault["killer"]
        items.sort(
            key=lambda each: (each.nodeid != killer, -killers[each.nodeid], seconds[each.nodeid])
        )
        work = _Mutated(session, items, functions, code)
        self.forks.start(number, sum(seconds[item.nodeid] for item in items), work)


@dataclass
class _Mutated:
    session: pytest.Session
    items: Sequence[pytest.Item]
    functions: Sequence[FunctionType]
    code: CodeType

    def __call__(self) -> int:
        for function in self.functions:
            function.__code__ = self.code
        return _run(self.session, self.items)


def _run(session: pytest.Session, items: Sequence[pytest.Item]) -> int:
    """Run tests until one fails."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            folder = Path(os.environ["PYTEST_DEBUG_TEMPROOT"])
            (folder / _KILLER).write_text(item.nodeid, "utf-8")
            return _KILLED
    return _SURVIVES


def _codes(text: str, path: str) -> list[CodeType]:
    """Return the code of a module's outermost functions, in the order of their ``def``."""
    places = [(node.name, _first_line(node)) for _, node in outermost(ast.parse(text))]
    found = {}
    todo = [compile(text, path, "exec", dont_inherit=True)]
    while todo:
        code = todo.pop()
        found[code.co_name, code.co_firstlineno] = code
        todo += [each for each in code.co_consts if isinstance(each, CodeType)]
    return [found[place] for place in places]


def _statement(text: str, line: int) -> frozenset[int]:
    """Return the lines of the innermost statement on a line, without those of its blocks."""
    best = frozenset[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            begin, end = node.lineno, node.end_lineno or 0
            body = getattr(node, "body", None)
            if body and not isinstance(node, ast.Match) and line < body[0].lineno:
                end = body[0].lineno - 1
            lines = frozenset(range(begin, end + 1))
            best = lines if not best or len(lines) < len(best) else best
    return best


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(each.lineno for each in node.decorator_list)])


def _live_functions(path: str) -> dict[int, list[FunctionType]]:
    """Return a module's outermost functions as they are in memory, by index."""
    places = {
        (node.name, _first_line(node)): index
        for index, (_, node) in enumerate(outermost(ast.parse(Path(path).read_text("utf-8"))))
    }
    found: dict[int, list[FunctionType]] = {}
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == path:
            index = places.get((each.__code__.co_name, each.__code__.co_firstlineno))
            if index is not None:
                found.setdefault(index, []).append(each)
    return found


def _baseline(session: pytest.Session, path: str) -> Baseline:
    """Run all tests in a fork and see which functions each of them enters."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        code = _BROKEN
        try:
            os.close(read)
            found = _traced(session, path)
            with os.fdopen(write, "w") as pipe:
                json.dump([found.tests, found.seconds], pipe)
            code = _KILLED if session.testsfailed else _SURVIVES
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != _SURVIVES:
        raise session.Interrupted("the tests fail without any fault")
    return Baseline(*json.loads(text))


def _traced(session: pytest.Session, path: str) -> Baseline:
    lines: set[int] = set()

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        del event, argument
        if frame.f_code.co_filename != path:
            return None
        lines.add(frame.f_lineno)
        return trace

    found = Baseline()
    threading.settrace(trace)
    for item, following in zip(session.items, [*session.items[1:], None], strict=True):
        lines.clear()
        begin = time.process_time()
        sys.settrace(trace)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        sys.settrace(None)
        found.seconds[item.nodeid] = time.process_time() - begin
        found.tests[item.nodeid] = sorted(lines)
    return found


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, with other content than its file has."""

    def __init__(self, order: Order, text: str) -> None:
        self._order = order
        self._text = text

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != self._order.module:
            return None
        loader = _Loader(fullname, self._order.source)
        loader.text = self._text
        return importlib.util.spec_from_file_location(fullname, self._order.source, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    text = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.get_filename(fullname), "exec", dont_inherit=True)


def _pytest(order: Order, *plugins: object) -> int:
    words = [*order.tests, "-q", "-x", "-p", "no:cacheprovider"]
    return int(pytest.main(words, plugins=list(plugins)))


def _campaign(order: Order, forks: Forks) -> Baseline:
    campaign = Campaign(order, forks)
    # What it prints is for people; the outcomes are the last line.
    with contextlib.redirect_stdout(sys.stderr):
        code = _pytest(order, campaign)
    if (
        code not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
        or not campaign.baseline
    ):
        raise SystemExit(f"{order.module}: the tests fail without any fault")
    return campaign.baseline


def main() -> None:
    """Do what the order on standard input says."""
    order = Order(**json.load(sys.stdin))
    read, write = os.pipe()
    # A fork: this process must not have imported the module.
    if (pid := os.fork()) == 0:
        forks = Forks(order.jobs, order.answers)
        found = _campaign(order, forks)
        with os.fdopen(write, "w") as pipe:
            json.dump([list(forks.settled), sum(found.seconds.values())], pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    if not text:
        raise SystemExit(1)
    settled, seconds = json.loads(text)
    forks = Forks(order.jobs, order.answers)
    for number, fault in enumerate(order.faults):
        if number not in settled:
            alive = UNREACHED if fault["index"] >= 0 else SURVIVED
            forks.start(number, seconds + CPU_SECONDS, _Imported(order, fault["source"]), alive)
    forks.wait()


@dataclass
class _Imported:
    order: Order
    text: str

    def __call__(self) -> int:
        sys.meta_path.insert(0, _Finder(self.order, self.text))
        return _KILLED if _pytest(self.order) else _SURVIVES


if __name__ == "__main__":
    main()
