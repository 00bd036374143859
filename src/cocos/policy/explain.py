# SPDX-License-Identifier: Apache-2.0
"""Which statement of a rule did not hold.

The engine itself is asked, with the policy's own text: for every body of a rule, its first
statement, its first two, and so on. The first that no longer hold name the culprit. So the
explanation comes out of the evaluation, never from a second reading of the policy.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from regorus import Engine

from cocos._types import JsonObject
from cocos.errors import Finding
from cocos.policy import _source
from cocos.policy._syntax import Rule, Syntax, path_of, walk
from cocos.policy.documents import NOTHING, BaseDocuments, check_data, check_input
from cocos.policy.engine import Policy

SECONDS: Final = 0.3
"""Processor time after which no further question is asked."""

MAX_FINDINGS: Final = 16
_MAX_TEXT: Final = 300
_PROBE: Final = "cocos_probe"
_OPERATORS: Final = {"Eq": "==", "Ne": "!=", "Lt": "<", "Le": "<=", "Gt": ">", "Ge": ">="}
_QUOTES: Final = b'"`'


@dataclass(frozen=True, slots=True)
class _Statement:
    """One statement of a body, or the value of a rule.

    Attributes:
        text: As it stands in the policy, without comments.
        line: Where it begins.
        node: Its expression, None where it is more than one.
    """

    text: str
    line: int
    node: JsonObject | None


def explain(
    policy: Policy,
    rules: Sequence[str],
    document: Mapping[str, Any],
    *,
    base: BaseDocuments = NOTHING,
    request: Mapping[str, Any] | None = None,
) -> tuple[Finding, ...]:
    """Say which statements of rules do not hold, and of those that they need.

    Args:
        policy: The policy.
        rules: Their names. Of an object's members only those that are in it, too, count:
            ``("trust_claims", "hardware")`` asks for what makes ``hardware``.
        document: As of :meth:`Policy.evaluate`.
        base: As there.
        request: As there.

    Raises:
        FormatError: as there.
    """
    check_input(document)
    if request is not None:
        check_data(request)
    return _Explanation(policy, policy.show(document, base, request), rules).findings()


class _Explanation:
    def __init__(self, policy: Policy, engine: Engine, asked: Sequence[str]) -> None:
        self._syntax = policy.syntax()
        self._engine = engine
        self._asked = asked
        self._until = time.process_time() + SECONDS
        self._document: Any = None

    def findings(self) -> tuple[Finding, ...]:
        waiting, seen = list(self._asked), set(self._asked)
        found: list[Finding] = []
        while waiting and len(found) < MAX_FINDINGS and time.process_time() < self._until:
            name = waiting.pop(0)
            for rule in self._syntax.rules:
                if rule.name != name or rule.is_function or rule.form == "Default":
                    continue
                for finding, needed in self._broken(rule):
                    found += [] if finding is None else [finding]
                    waiting += sorted(needed - seen)
                    seen |= needed
        return tuple(found[:MAX_FINDINGS])

    def _broken(self, rule: Rule) -> Iterator[tuple[Finding | None, set[str]]]:
        """Yield what does not hold in each body of a rule, and the rules that it needs."""
        if rule.value is not None and "Object" in rule.value:
            yield None, self._members(rule.value["Object"])
        for statements in _bodies(self._syntax, rule):
            for count in range(1, len(statements) + 1):
                held = self._holds(statements[:count])
                if held is None:
                    continue  # it needs a variable that only comes later
                if held is not True:
                    yield self._finding(rule, statements[:count], held)
                    break

    def _members(self, node: JsonObject) -> set[str]:
        needed: set[str] = set()
        for _, name, value in node["fields"]:
            text = name.get("String", {}).get("value")
            if text in self._asked:
                needed |= self._rules_in(value)
        return needed

    def _rules_in(self, node: Any) -> set[str]:
        paths = (path_of({kind: part}) for kind, part in walk([node]) if kind == "Var")
        return {str(path[0]) for path in paths if path and path[0] in self._syntax.names}

    def _holds(self, statements: Sequence[_Statement]) -> bool | str | None:
        """Return whether statements hold, None if that is no question, else the error."""
        try:
            return bool(self._ask("true", statements))
        except RuntimeError as error:
            said = _source.describe(error)
            return None if "is unsafe" in said or "compile" in said else said

    def _ask(self, value: str, statements: Sequence[_Statement]) -> Any:
        if time.process_time() > self._until:
            raise RuntimeError("no time to compile")
        body = "\n".join(statement.text for statement in statements) or "true"
        engine = self._engine.clone()
        engine.add_policy(
            f"{_PROBE}.rego",
            f"package policy\n{self._syntax.imports}{_PROBE} := [{value} |\n{body}\n]\n",
        )
        found = Policy.ask(engine, f"[x | x := data.policy.{_PROBE}]")
        return found[0][:1] if found else []

    def _finding(
        self, rule: Rule, statements: Sequence[_Statement], held: bool | str
    ) -> tuple[Finding, set[str]]:
        last = statements[-1]
        where = f"line {last.line}, rule {rule.dotted}"
        text = " ".join(last.text.split())
        text = text if len(text) < _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
        if isinstance(held, str):
            return Finding("policy", f"{where} fails: {text}", held), set()
        needed = self._rules_in(last.node) - {rule.name} if last.node is not None else set()
        sides = _sides(self._syntax, last)
        try:
            if sides is not None:
                left, operator, right = sides
                values = self._ask(f"[{left}, {right}]", statements[:-1])
                if values:
                    actual, wanted = map(json.dumps, values[0])
                    return Finding(
                        "policy", f"{where} is false: {text}", actual, f"{operator} {wanted}"
                    ), set()
            if last.node is not None and self._ask(f"({last.text})", statements[:-1]):
                return Finding("policy", f"{where} is false: {text}", "false", "true"), needed
        except RuntimeError:
            return Finding("policy", f"{where} does not hold: {text}"), needed
        what = "does not hold" if last.node is None else "is undefined"
        return Finding("policy", f"{where} {what}: {text}"), needed


def _bodies(syntax: Syntax, rule: Rule) -> Iterator[list[_Statement]]:
    """Yield the statements of each body; a value that is no literal is the last one."""
    head = rule.value
    for body in rule.bodies:
        query, own = body["query"], body.get("assign")
        value = own["value"] if own else head
        yield [*_statements(syntax, query), *_value(syntax, value)]
    if not rule.bodies:
        yield _value(syntax, head)


def _value(syntax: Syntax, node: JsonObject | None) -> list[_Statement]:
    kind = None if node is None else next(iter(node))
    if node is None or kind in {"Bool", "Number", "String", "RawString", "Null", "Object"}:
        return []
    if str(kind).endswith("Compr"):
        return []  # empty at worst
    start, end = _place(syntax.source, node[str(kind)]["span"])
    return [_Statement(_plain(syntax.source[start:end]), node[str(kind)]["span"]["line"], node)]


def _statements(syntax: Syntax, query: JsonObject) -> list[_Statement]:
    source, parts = syntax.source, query["stmts"]
    starts = [_place(source, part["span"])[0] for part in parts]
    end = _place(source, query["span"])[1]
    braces = bool(parts) and source[query["span"]["start"] : starts[0]].lstrip().startswith(b"{")
    found = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        text = _plain(source[starts[number] : end if last else starts[number + 1]])
        if last and braces:
            text = text.removesuffix("}")
        literal = part["literal"].get("Expr") if not part.get("with_mods") else None
        node = None if literal is None or "AssignExpr" in literal["expr"] else literal["expr"]
        found.append(_Statement(text.strip().rstrip(";").strip(), part["span"]["line"], node))
    return found


def _place(source: bytes, span: JsonObject) -> tuple[int, int]:
    """Return where a statement begins and ends: its span leaves parentheses out."""
    start, end = _unquoted(source, span)
    while (before := source[:start].rstrip()).endswith(b"("):
        start = len(before) - 1
    while source[end : end + 1] == b")":
        end += 1
    return start, end


def _unquoted(source: bytes, span: JsonObject) -> tuple[int, int]:
    """Return where something begins and ends: its span leaves the quotes of texts out."""
    start, end = span["start"], span["end"]
    begins = start > 0 and source[start - 1] in _QUOTES
    ends = end < len(source) and source[end] in _QUOTES
    return start - begins, end + ends


def _plain(text: bytes) -> str:
    """Return text without comments."""
    return _source.TEXT.sub(
        lambda found: "" if found[0].startswith("#") else found[0], text.decode()
    ).strip()


def _sides(syntax: Syntax, statement: _Statement) -> tuple[str, str, str] | None:
    """Split a comparison; None if it is something else."""
    node = statement.node
    if node is None or "BoolExpr" not in node:
        return None
    operator = _OPERATORS.get(node["BoolExpr"]["op"])
    sides = [node["BoolExpr"][side] for side in ("lhs", "rhs")]
    spans = [next(iter(side.values()))["span"] for side in sides]
    left, right = (_plain(syntax.source[slice(*_unquoted(syntax.source, span))]) for span in spans)
    return None if operator is None else (left, operator, right)
