# SPDX-License-Identifier: Apache-2.0
"""Put faults into the modules that trust rests on, one at a time, and see that a test fails.

``tests/mutants.toml`` says which tests judge which module, and argues why some faults change
nothing that a test could see. A module's tests are collected once; every fault then runs in
a fork of that process, by the tests that come to its line, first the one that noticed it last
time. What comes out is written to ``build/mutants`` fault by fault: a run that was broken off
goes on where it was, and what is known holds until the module or its tests change.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mutations import Mutation, mutations

ROOT: Final = Path(__file__).resolve().parent.parent
TABLE: Final = ROOT / "tests" / "mutants.toml"
CACHE: Final = ROOT / "build" / "mutants"
SURVIVED: Final = "survived"
UNREACHED: Final = "no test comes there"

Name = tuple[str, str, str]
"""Function, line before, line after."""


class CannotJudgeError(Exception):
    """What a module's tests said when they failed without any fault."""


@dataclass(frozen=True)
class Module:
    """A module and what judges it.

    Attributes:
        path: Below ``src/cocos``, without suffix.
        tests: Files and folders below ``tests``.
        argued: Fault → why no test can see it.
    """

    path: str
    tests: tuple[str, ...]
    argued: dict[Name, str]

    @property
    def source(self) -> Path:
        """The file."""
        return ROOT / "src" / "cocos" / f"{self.path}.py"

    @property
    def test_paths(self) -> list[Path]:
        """The files and folders."""
        return [ROOT / "tests" / each for each in self.tests]

    def key(self) -> str:
        """Return a digest of all that decides what comes out."""
        files = [self.source, *(ROOT / "tools").glob("mutant*.py"), ROOT / "tools/mutations.py"]
        files += [*(ROOT / "tests" / "support").rglob("*.py"), ROOT / "tests" / "conftest.py"]
        for path in self.test_paths:
            files += [path] if path.is_file() else path.rglob("*.py")
            files += [path.parent / "conftest.py"]
        digest = hashlib.sha256(sys.version.encode())
        for file in sorted(set(files)):
            if file.exists():
                digest.update(f"{file}\0".encode() + file.read_bytes())
        return digest.hexdigest()


def table(text: str) -> list[Module]:
    """Read the table of modules.

    Raises:
        KeyError: a member is missing.
        ValueError: two arguments for one fault, or not TOML.
    """
    found = []
    for path, entry in tomllib.loads(text)["modules"].items():
        argued: dict[Name, str] = {}
        for each in entry.get("argued", ()):
            name = (each["function"], each["before"], each["after"])
            if name in argued:
                raise ValueError(f"{path}: argued twice: {name}")
            if not each["reason"].strip():
                raise ValueError(f"{path}: no reason for {name}")
            argued[name] = each["reason"]
        found.append(Module(path, tuple(entry["tests"]), argued))
    return found


def judge(module: Module, jobs: int) -> dict[Name, str]:
    """Return what came of each fault: ``killed``, ``survived`` and so on; from the cache if it can.

    Raises:
        CannotJudgeError: the tests fail without any fault.
    """
    faults = mutations(module.source.read_text("utf-8"))
    record = Record(CACHE / f"{module.path.replace('/', '-')}.jsonl", module.key())
    todo = [number for number in range(len(faults)) if number not in record.outcomes]
    if todo:
        _run(module, faults, todo, record, jobs)
    found: dict[Name, str] = {}
    for number, fault in enumerate(faults):
        # Of faults with one name, the worst decides.
        if found.get(fault.name, "killed") == "killed":
            found[fault.name] = record.outcomes[number]
    return found


class Record:
    """What came of a module's faults, in a file.

    Attributes:
        outcomes: By the fault's number; those that are known of the module as it is now.
        killers: Fault → the test that noticed it, be it in another state of the module.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.outcomes: dict[int, str] = {}
        self.killers: dict[Name, str] = {}
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else ['""']
        for line in lines[1:]:
            number, function, before, after, outcome, killer = json.loads(line)
            self.killers[function, before, after] = killer
            if json.loads(lines[0]) == key:
                self.outcomes[number] = outcome
        if not self.outcomes:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(key) + "\n", "utf-8")

    def add(self, number: int, fault: Mutation, outcome: str, killer: str) -> None:
        """Write down what came of a fault."""
        self.outcomes[number] = outcome
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([number, *fault.name, outcome, killer]) + "\n")


def _run(
    module: Module, faults: Sequence[Mutation], todo: Sequence[int], record: Record, jobs: int
) -> None:
    read, write = os.pipe()
    order = {
        "source": str(module.source),
        "module": "cocos." + module.path.removesuffix("/__init__").replace("/", "."),
        "tests": [str(path) for path in module.test_paths],
        "jobs": jobs,
        "answers": write,
        "faults": [
            dataclasses.asdict(faults[number])
            | {"killer": record.killers.get(faults[number].name, "")}
            for number in todo
        ],
    }
    words = [sys.executable, str(ROOT / "tools" / "mutant_runs.py")]
    with tempfile.TemporaryFile() as said:
        run = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=said, stderr=said, cwd=ROOT, pass_fds=[write]
        )
        os.close(write)
        assert run.stdin is not None
        with run.stdin as pipe:
            pipe.write(json.dumps(order).encode())
        with os.fdopen(read, encoding="utf-8") as answers:
            for line in answers:
                place, outcome, killer = json.loads(line)
                record.add(todo[place], faults[todo[place]], outcome, killer)
                if sys.stdout.isatty():
                    done = f"{module.path}: {len(record.outcomes)} of {len(faults)}"
                    print(done, end="\r", flush=True)
        if run.wait() or len(record.outcomes) != len(faults):
            said.seek(0)
            raise CannotJudgeError(said.read().decode(errors="replace"))


def complaints(module: Module, outcomes: dict[Name, str]) -> list[str]:
    """Return what has to be mended: survivors that nobody argued, and arguments about nothing."""
    found = []
    for name, outcome in outcomes.items():
        if outcome in {SURVIVED, UNREACHED} and name not in module.argued:
            function, before, after = name
            found.append(f"{module.path}: {function}: {outcome}\n    - {before}\n    + {after}")
    for name in module.argued:
        if outcomes.get(name) not in {SURVIVED, UNREACHED}:
            said = outcomes.get(name, "there is no such fault any more")
            found.append(f"{module.path}: {name[0]}: argued, but {said}: {name[2]}")
    return found


def main() -> None:
    """Judge the modules that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="parts of their paths; none: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    modules = table(TABLE.read_text("utf-8"))
    if options.modules:
        modules = [each for each in modules if any(part in each.path for part in options.modules)]
    found: list[str] = []
    for module in modules:
        try:
            outcomes = judge(module, options.jobs)
        except CannotJudgeError as error:
            found.append(f"{module.path}: {error}")
            continue
        counts = Counter(outcomes.values())
        shown = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        print(f"{module.path}: {shown}; {len(module.argued)} argued", flush=True)
        found += complaints(module, outcomes)
    print("\n".join(found))
    if found or not modules:
        raise SystemExit(f"{len(found)} to mend: kill them by a test, or argue in {TABLE}")


if __name__ == "__main__":
    main()
