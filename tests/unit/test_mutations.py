# SPDX-License-Identifier: Apache-2.0
"""The harness that judges tests: its faults, and that it tells who lives from who dies."""

import ast
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from mutants import SURVIVED, UNREACHED, Module, Record, complaints, table
from mutations import MODULE, mutations

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "cocos" / "crypto").glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=[path.stem for path in SOURCES])
def test_every_fault_is_another_module(path: Path) -> None:
    source = path.read_text("utf-8")
    for fault in mutations(source):
        assert ast.dump(ast.parse(fault.source)) != ast.dump(ast.parse(source))
        assert fault.before != fault.after
        assert fault.before in " ".join(source.split())


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a and not b", ["x = (not b)", "x = (a)", "x = a and (b)"]),
        ("x = 7", ["x = 8"]),
        ("x = True", ["x = False"]),
        ("x = [a for a in b if a]", ["x = [a for a in b if True]"]),
        ("x = any(a)", ["x = all(a)"]),
        ("a[0] = b", ["pass", "a[1] = b"]),
        ("f()", ["pass"]),
        ("_log.info(1)", []),
        ("raise ValueError(1)", ["pass"]),
        ("x: int | None = None", []),
        ("x = isinstance(a, str | bytes)", []),
    ],
)
def test_faults_of_a_line(line: str, faults: list[str]) -> None:
    found = mutations(line)
    assert [each.after for each in found] == faults
    assert {each.function for each in found} <= {MODULE}


def test_a_check_is_taken_away_once() -> None:
    source = "def f(a):\n    if a:\n        raise ValueError('no')\n    return 1\n"
    found = [(fault.function, fault.after) for fault in mutations(source)]
    assert found == [("f", "if False:"), ("f", "return 2")]


VICTIM = """\
LIMIT = 3


def reached(number: int) -> bool:
    try:
        return number < LIMIT
    except TypeError:
        return False


class Gate:
    async def open(self, number: int) -> str:
        if number > LIMIT or number == -1:
            raise ValueError(number)
        return "open"


def forgotten() -> int:
    return 1


def once() -> bool:
    return not LIMIT


ONCE = once()
"""
TESTS = """\
import asyncio

import pytest
from victim import ONCE, Gate, reached


def test_reached() -> None:
    assert reached(2)
    assert not reached(3)
    assert not ONCE


def test_gate() -> None:
    assert asyncio.run(Gate().open(0)) == "open"
    with pytest.raises(ValueError, match="5"):
        asyncio.run(Gate().open(5))
"""


@pytest.mark.integration
def test_who_dies_and_who_lives(tmp_path: Path) -> None:
    source, tests = tmp_path / "victim.py", tmp_path / "test_victim.py"
    source.write_text(VICTIM)
    tests.write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    faults = mutations(VICTIM)
    order = {
        "source": str(source),
        "module": "victim",
        "tests": [str(tests)],
        "jobs": 2,
        "faults": [dataclasses.asdict(each) | {"killer": ""} for each in faults],
    }
    with tempfile.TemporaryFile() as answers:
        subprocess.run(
            [sys.executable, ROOT / "tools" / "mutant_runs.py"],
            input=json.dumps(order | {"answers": answers.fileno()}).encode(),
            capture_output=True,
            cwd=tmp_path,
            pass_fds=[answers.fileno()],
            check=True,
        )
        answers.seek(0)
        lines = [json.loads(line) for line in answers]
    killers = {faults[number].after: killer.partition("::")[2] for number, _, killer in lines}
    assert killers["if False:"] == "test_gate"
    assert killers["return (number <= LIMIT)"] == "test_reached"
    assert len(lines) == len(faults)
    assert {faults[number].after: outcome for number, outcome, _ in lines} == {
        "LIMIT = 4": "killed",
        "return (number <= LIMIT)": "killed",
        "if False:": "killed",
        "if (number == -1):": "killed",
        "if (number > LIMIT):": SURVIVED,
        "if (number >= LIMIT) or number == -1:": SURVIVED,
        "if number > LIMIT or (number != -1):": "killed",
        "if number > LIMIT or number == -2:": SURVIVED,
        "return 2": UNREACHED,
        "return True": UNREACHED,
        "return (LIMIT)": "killed",
    }


def test_what_is_known_of_a_module_holds_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    one, two = mutations("x = a < b\ny = 7")
    Record(path, "first").add(0, one, "killed", "test_x")
    Record(path, "first").add(1, two, SURVIVED, "")
    again = Record(path, "first")
    assert again.outcomes == {0: "killed", 1: SURVIVED}
    changed = Record(path, "second")
    assert not changed.outcomes
    assert changed.killers[one.name] == "test_x"
    assert not Record(path, "first").outcomes


ENTRY = """
[modules."a/b"]
tests = ["unit/a"]
[[modules."a/b".argued]]
function = "f"
before = "x = 1"
after = "x = 2"
reason = "%s"
"""


def test_an_argument_needs_a_fault_that_lives() -> None:
    (module,) = table(ENTRY % "nobody sees it")
    name = ("f", "x = 1", "x = 2")
    assert module == Module("a/b", ("unit/a",), {name: "nobody sees it"})
    assert complaints(module, {name: SURVIVED}) == []
    assert "argued, but killed" in complaints(module, {name: "killed"})[0]
    assert "no such fault" in complaints(module, {})[0]
    other = ("f", "y = 1", "y = 2")
    assert "survived" in complaints(module, {name: SURVIVED, other: SURVIVED})[0]
    with pytest.raises(ValueError, match="no reason"):
        table(ENTRY % " ")
