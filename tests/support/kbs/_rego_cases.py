# SPDX-License-Identifier: Apache-2.0
"""Public cases of what Rego means to Trustee's engine, beside the project and never in it."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from regorus import Engine

FOLDER = Path(
    os.environ.get("COCOS_REGO_CASES")
    or Path(__file__).resolve().parents[4] / "shared" / "rego-cases"
)
UNDEFINED = "<undefined>"


class _Yaml(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
    """YAML 1.2 as far as it matters: no dates, and 1e3 is a number."""


_Yaml.yaml_implicit_resolvers = {
    letter: [each for each in found if each[0] != "tag:yaml.org,2002:timestamp"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Case:
    """One case: modules, data and inputs, and what a query says of them."""

    name: str
    given: dict[str, Any]

    @property
    def text(self) -> str:
        return "\n".join([*self.given["modules"], self.given["query"]])

    def agrees(self) -> bool:
        """Tell whether our engine says what is wanted, in Rego as it was or as it is."""
        return self._agrees(old=True) or self._agrees(old=False)

    def _agrees(self, *, old: bool) -> bool:
        try:
            got = list(self._ask(self.given["query"], old=old))
        except RuntimeError:
            return bool(self.given.get("error"))
        if self.given.get("error"):
            return False
        if self.given.get("no_result"):
            return got in ([], [UNDEFINED], [False])
        wanted = self.given.get("want_result")
        each = [_wanted(one) for one in _many(wanted)]
        if len(each) == len(got) and all(map(_same, got, each)):
            return True
        # Keys that are no text look alike as JSON: ask the engine itself.
        literal = f"({self.given['query']} == {_literal(wanted)}) == true"
        return "object!" in json.dumps(wanted) and list(self._ask(literal, old=old)) == [True]

    def _ask(self, query: str, *, old: bool) -> Iterator[Any]:
        engine = Engine()
        engine.set_rego_v0(old)
        engine.set_gather_prints(True)
        for number, module in enumerate(self.given["modules"]):
            engine.add_policy(f"{number}.rego", module)
        if self.given.get("data") is not None:
            engine.add_data_json(json.dumps(self.given["data"]))
        shown = self.given.get("input")
        for document in _many(shown):
            if "input" in self.given:
                engine.set_input_json(json.dumps(document))
            results = json.loads(engine.eval_query_as_json(query)).get("result") or []
            if results and results[-1].get("bindings"):
                yield results[-1]["bindings"]
            elif results and results[-1].get("expressions"):
                yield results[-1]["expressions"][-1]["value"]


def rego_cases() -> list[Case]:
    """Return every case; without them the test is skipped, in CI it fails."""
    if not FOLDER.is_dir():
        reason = f"there are no cases in {FOLDER} (set COCOS_REGO_CASES)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    found = []
    for file in sorted(FOLDER.rglob("*.yaml")):
        cases = yaml.load(file.read_text("utf-8"), _Yaml)["cases"]  # noqa: S506 - safe
        found += [
            Case(f"{file.relative_to(FOLDER)}#{number}", case) for number, case in enumerate(cases)
        ]
    return found


def _many(value: Any) -> list[Any]:
    return value["many!"] if isinstance(value, dict) and "many!" in value else [value]


def _special(value: Any, name: str) -> list[Any] | None:
    found = value.get(name) if isinstance(value, dict) and len(value) == 1 else None
    return found if isinstance(found, list) else None


class _Set(list[Any]):
    """Wanted members, in any order."""


def _wanted(value: Any) -> Any:
    if value == "#undefined":
        return UNDEFINED
    if (members := _special(value, "set!")) is not None:
        return _Set(map(_wanted, members))
    if (pairs := _special(value, "object!")) is not None:
        return {_key(_wanted(each["key"])): _wanted(each["value"]) for each in pairs}
    if isinstance(value, dict):
        return {_key(_wanted(name)): _wanted(member) for name, member in value.items()}
    return list(map(_wanted, value)) if isinstance(value, list) else value


def _key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key, separators=(",", ":"))


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and _same_members(got, wanted)
    if isinstance(wanted, dict):
        return isinstance(got, dict) and len(got) == len(wanted) and _same_object(got, wanted)
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(wanted, int | float) and isinstance(got, int | float):
        return got == wanted or (abs(wanted) >= 2**63 and float(got) == float(wanted))
    return type(got) is type(wanted) and bool(got == wanted)


def _same_members(got: list[Any], wanted: list[Any]) -> bool:
    if not isinstance(wanted, _Set):
        return all(map(_same, got, wanted))
    return all(any(_same(member, each) for member in got) for each in wanted)


def _same_object(got: dict[str, Any], wanted: dict[str, Any]) -> bool:
    members = {_blanks(name): member for name, member in got.items()}
    return all(
        _blanks(name) in members and _same(members[_blanks(name)], member)
        for name, member in wanted.items()
    )


def _blanks(name: str) -> str:
    """Write a key that is an array or an object as JSON always is."""
    try:
        return json.dumps(json.loads(name), sort_keys=True) if name[:1] in {"[", "{"} else name
    except ValueError:
        return name


def _literal(value: Any) -> str:
    if (members := _special(value, "set!")) is not None:
        return "{" + ",".join(map(_literal, members)) + "}" if members else "set()"
    if (pairs := _special(value, "object!")) is not None:
        each = (f"{_literal(pair['key'])}:{_literal(pair['value'])}" for pair in pairs)
        return "{" + ",".join(each) + "}"
    if isinstance(value, dict):
        each = (f"{json.dumps(name)}:{_literal(member)}" for name, member in value.items())
        return "{" + ",".join(each) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_literal, value)) + "]"
    return json.dumps(value)
