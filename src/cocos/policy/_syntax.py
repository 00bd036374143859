# SPDX-License-Identifier: Apache-2.0
"""A policy as the engine has understood it: its rules, what they call and what they name.

A text can write a name in many ways, such as ``time["now_ns"]()``; the syntax tree has one.
Nothing here calls itself: a tree is as deep as the policy's author likes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from cocos._types import JsonObject

PACKAGE: Final = ("data", "policy")

Path = tuple[str | None, ...]
"""``input.a[x].b`` is ``("input", "a", None, "b")``."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One definition of a rule; a rule may have several.

    Attributes:
        path: Its name: ``allow`` is ``("allow",)``.
        form: ``Compr`` for a value, ``Set`` for one with members, ``Func`` for a function,
            ``Default`` for what holds where no other one does.
        line: Where it begins.
        arity: Number of a function's arguments.
        node: As in the tree.
    """

    path: Path
    form: str
    line: int
    arity: int
    node: JsonObject

    @property
    def name(self) -> str:
        """Return the first part of the name."""
        return str(self.path[0]) if self.path else ""

    @property
    def dotted(self) -> str:
        """Return the whole name."""
        return dotted(self.path)

    @property
    def is_function(self) -> bool:
        """Whether it is called, not read."""
        return self.form == "Func" or (self.form == "Default" and self.arity > 0)

    @property
    def bodies(self) -> list[JsonObject]:
        """Its bodies, each ``else`` one more."""
        return list(self.node.get("bodies", ()))

    @property
    def value(self) -> JsonObject | None:
        """The expression in its head; None where it is true by its body."""
        if self.form == "Default":
            value: JsonObject = self.node["value"]
            return value
        assign = self.node["head"].get(self.form, {}).get("assign")
        return None if assign is None else assign["value"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function.

    Attributes:
        name: Dotted, as the engine looks it up: without the policy's own package.
        line: Where.
        arguments: Expressions.
    """

    name: str
    line: int
    arguments: list[JsonObject]


class Syntax:
    """The syntax tree of one policy."""

    def __init__(self, text: str, tree: str) -> None:
        """Read what the engine says of its only policy.

        Args:
            text: The policy.
            tree: JSON of ``Engine.get_ast_as_json``.

        Raises:
            RecursionError: nested too deep.
        """
        self.source = text.encode()
        parsed = json.loads(tree)[0]["ast"]
        self.rules = tuple(_rules(parsed))
        self._imports = parsed["imports"]

    def text(self, span: JsonObject) -> str:
        """Return what stands at a place."""
        return self.source[span["start"] : span["end"]].decode()

    @cached_property
    def aliases(self) -> dict[str, Path]:
        """What imports name: alias → path."""
        found = {}
        for each in self._imports:
            path = path_of(each["refr"])
            if path and path[0] in {"data", "input"}:
                alias = each.get("as")
                found[self.text(alias) if alias else str(path[-1])] = path
        return found

    @cached_property
    def imports(self) -> str:
        """Its imports, as text."""
        return "".join(f"{self.text(each['span'])}\n" for each in self._imports)

    @cached_property
    def functions(self) -> dict[str, set[int]]:
        """Name → numbers of arguments, of the policy's own functions."""
        found: dict[str, set[int]] = {}
        for rule in self.rules:
            if rule.is_function:
                found.setdefault(rule.dotted, set()).add(rule.arity)
        return found

    @cached_property
    def names(self) -> set[str]:
        """First parts of the names of all rules."""
        return {rule.name for rule in self.rules}

    def calls(self, node: Any) -> Iterator[Call]:
        """Yield every call below a node."""
        for kind, found in walk(node):
            if kind == "Call":
                path = self.own(path_of(found["fcn"]) or (None,))
                yield Call(dotted(path), found["span"]["line"], found["params"])

    def replacements(self, node: Any) -> Iterator[tuple[str, int]]:
        """Yield name and line of whatever ``with`` puts in something's place below a node."""
        for kind, found in walk(node):
            if kind == "with_mods":
                for each in found:
                    path = path_of(each["as"])
                    if path is not None:
                        yield dotted(self.own(path)), each["span"]["line"]

    def own(self, path: Path) -> Path:
        """Return a path with imports resolved, without the policy's own package."""
        if path and isinstance(path[0], str) and path[0] in self.aliases:
            path = (*self.aliases[path[0]], *path[1:])
        return path[2:] if path[:2] == PACKAGE and len(path) > len(PACKAGE) else path


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield every named part below a node: such as ``Call``."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            for name, member in found.items():
                if isinstance(member, dict | list):
                    yield name, member
                    waiting.append(member)
        elif isinstance(found, list):
            waiting.extend(found)


def path_of(node: JsonObject) -> Path | None:
    """Return the path that an expression is, None if it begins with anything but a name."""
    parts: list[str | None] = []
    while True:
        if "RefDot" in node:
            parts.append(node["RefDot"]["field"][1])
            node = node["RefDot"]["refr"]
        elif "RefBrack" in node:
            parts.append(text_of(node["RefBrack"]["index"]))
            node = node["RefBrack"]["refr"]
        elif "Var" in node:
            return (node["Var"]["value"], *reversed(parts))
        else:
            return None


def text_of(node: JsonObject) -> str | None:
    """Return the text that an expression is, None if it is anything else."""
    found = node.get("String") or node.get("RawString")
    return None if found is None else str(found["value"])


def dotted(path: Path) -> str:
    """Write a path as policies do; ``?`` stands for what is not known beforehand."""
    return ".".join("?" if part is None else part for part in path)


def _rules(tree: JsonObject) -> Iterator[Rule]:
    for each in tree["rules"]:
        if "Default" in each:
            node, form = each["Default"], "Default"
            refr, arguments = node["refr"], node.get("args") or []
        else:
            node = each["Spec"]
            form, head = next(iter(node["head"].items()))
            refr, arguments = head["refr"], head.get("args") or []
        yield Rule(path_of(refr) or (None,), form, node["span"]["line"], len(arguments), node)
