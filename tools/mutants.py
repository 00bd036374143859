# SPDX-License-Identifier: Apache-2.0
"""Put faults into the modules that trust rests on, one at a time, and see that a test fails.

``tests/mutants.toml`` says which tests judge which module, and argues why some faults change
nothing that a test could see. A module's tests are collected once; every fault then runs in
a fork of that process, by the tests that enter the function it is in. Results are kept in
``build/mutants`` until the module or its tests change.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
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
UNREACHED: Final = "no test enters it"

Name = tuple[str, str, str]
"""Function, line before, line after."""


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
        SystemExit: the tests fail without any fault.
    """
    cached = CACHE / f"{module.path.replace('/', '-')}.json"
    key = module.key()
    if cached.exists():
        kept = json.loads(cached.read_text())
        if kept["key"] == key:
            return {tuple(name): outcome for name, outcome in kept["outcomes"]}
    faults = mutations(module.source.read_text("utf-8"))
    outcomes = _run(module, faults, jobs)
    found: dict[Name, str] = {}
    for fault, outcome in zip(faults, outcomes, strict=True):
        # Of faults with one name, the worst decides.
        if found.get(fault.name, "killed") == "killed":
            found[fault.name] = outcome
    CACHE.mkdir(parents=True, exist_ok=True)
    cached.write_text(json.dumps({"key": key, "outcomes": list(found.items())}))
    return found


def _run(module: Module, faults: Sequence[Mutation], jobs: int) -> list[str]:
    order = {
        "source": str(module.source),
        "module": "cocos." + module.path.removesuffix("/__init__").replace("/", "."),
        "tests": [str(path) for path in module.test_paths],
        "jobs": jobs,
        "faults": [dataclasses.asdict(fault) for fault in faults],
    }
    words = [sys.executable, str(ROOT / "tools" / "mutant_runs.py")]
    done = subprocess.run(
        words, input=json.dumps(order).encode(), capture_output=True, cwd=ROOT, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr.decode(errors="replace"))
    outcomes: list[str] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


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
        outcomes = judge(module, options.jobs)
        counts = Counter(outcomes.values())
        shown = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        print(f"{module.path}: {shown}; {len(module.argued)} argued", flush=True)
        found += complaints(module, outcomes)
    print("\n".join(found))
    if found or not modules:
        raise SystemExit(f"{len(found)} to mend: kill them by a test, or argue in {TABLE}")


if __name__ == "__main__":
    main()
