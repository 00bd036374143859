# SPDX-License-Identifier: Apache-2.0
"""What the statements of a policy do with variables: which they read, which they bind."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.policy import builtins
from cocos.policy._syntax import Syntax, dotted, path_of, walk

Names = AbstractSet[str]

ANY: Final = "_"
SCALARS: Final = frozenset({"String", "RawString", "Number", "Bool", "Null"})
COMPREHENSIONS: Final = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})
_REFERENCES: Final = frozenset({"RefDot", "RefBrack"})
_OTHERS: Final = frozenset(
    {"Array", "Set", "Object", "Call", "UnaryExpr", "BinExpr", "BoolExpr", "ArithExpr"}
    | {"AssignExpr", "Membership"}
)
_CHILDREN: Final = ("items", "params", "expr", "lhs", "rhs", "key", "value", "collection")


@dataclass(frozen=True, slots=True)
class Closure:
    """A comprehension or ``every``.

    Attributes:
        kind: As in the tree.
        node: As there.
        shared: Variables that it names and does not declare: those of them that stand outside,
            too, are one with those there.
    """

    kind: str
    node: JsonObject
    shared: Names


@dataclass(frozen=True, slots=True)
class _Binder:
    """Variables that are known as soon as others are.

    Attributes:
        needs: What has to be known.
        shared: What has to be known of it where it stands outside of a closure, too.
        binds: What is known then.
        partners: Variables that could be bound by them instead. The engine binds one such by
            the other only when somebody needs it.
    """

    needs: Names
    shared: Names
    binds: Names
    partners: Names = frozenset()


@dataclass(slots=True)
class Uses:
    """What one statement does with variables.

    Attributes:
        reads: Variable → line, of all that it names outside of closures.
        binders: How it binds them.
        closures: What it has of them.
        wild: A line where ``_`` takes every member, None where none does.
    """

    reads: dict[str, int] = field(default_factory=dict)
    binders: list[_Binder] = field(default_factory=list)
    closures: list[Closure] = field(default_factory=list)
    wild: int | None = None

    @property
    def shared(self) -> Names:
        """Variables that its closures name and do not declare."""
        return set().union(*(each.shared for each in self.closures))

    def bound(
        self,
        known: Names,
        own: Names,
        outside: Names | None = None,
    ) -> Names | None:
        """Return what is known after this statement, None if it has to wait.

        Args:
            known: What is known before.
            own: Variables of the query: a closure waits for those that it reads.
            outside: Look only at what the engine binds at the first opportunity; what is
                known outside of the query.
        """
        after, more = set(known), set(known)
        while more:
            more = set()
            for each in self.binders:
                late = outside is not None and not each.partners <= outside
                if not late and each.needs | (each.shared & own) <= after:
                    more |= each.binds - after
            after |= more
        return after if self.reads.keys() | (self.shared & own) <= after else None


class Reader:
    """Reads statements and expressions of one policy."""

    def __init__(self, syntax: Syntax) -> None:
        """Read what is in a syntax tree."""
        self._syntax = syntax

    def statement(self, node: JsonObject) -> Uses:
        """Return what a statement does with variables.

        Raises:
            FormatError: ``_`` below ``not``, or a form that nobody knows.
        """
        uses = Uses()
        for each in node.get("with_mods") or ():
            self._ground(each["as"], uses, "in what with puts in")
        kind, literal = next(iter(node["literal"].items()))
        if kind == "Expr":
            self._expression(literal["expr"], uses)
        elif kind == "NotExpr":
            self._ground(literal["expr"], uses, "below not")
        elif kind == "SomeIn":
            self.gather(literal["collection"], uses)
            for each in (literal.get("key"), literal["value"]):
                if each is not None:
                    self._match(each, literal["collection"], uses)
        elif kind == "Every":
            self.gather(literal["domain"], uses)
            uses.closures.append(self._closure(kind, literal))
        elif kind != "SomeVars":
            raise FormatError(f"the policy has a {kind}, which is not known here")
        return uses

    def declared(self, statement: JsonObject) -> list[tuple[str, int]]:
        """Return name and line of each variable that a statement declares to be its body's."""
        kind, node = next(iter(statement["literal"].items()))
        patterns: list[JsonObject] = []
        if kind == "SomeVars":
            return [(self._syntax.text(span), span["line"]) for span in node["vars"]]
        if kind == "SomeIn":
            patterns = [part for part in (node.get("key"), node["value"]) if part is not None]
        elif kind == "Expr" and node["expr"].get("AssignExpr", {}).get("op") == "ColEq":
            patterns = [node["expr"]["AssignExpr"]["lhs"]]
        # Within one pattern a name may stand twice, and means the same value.
        return [found for part in patterns for found in dict(pattern(part)[0]).items()]

    def every(self, node: JsonObject) -> list[tuple[str, int]]:
        """Return name and line of the variables of an ``every``."""
        spans = [node[part] for part in ("key", "value") if node.get(part)]
        named = [(self._syntax.text(span), span["line"]) for span in spans]
        return [(name, line) for name, line in named if name != ANY]

    def gather(self, expression: JsonObject, uses: Uses) -> None:
        """Note what an expression reads, and which variables take the members of something."""
        waiting = [expression]
        while waiting:
            each = waiting.pop()
            kind, node = next(iter(each.items()))
            if kind == "Var":
                uses.reads.setdefault(node["value"], node["span"]["line"])
            elif kind in COMPREHENSIONS:
                uses.closures.append(self._closure(kind, node))
            elif kind in _REFERENCES:
                waiting += self._reference(each, uses)
            elif kind in _OTHERS:
                waiting += children(node)
            elif kind not in SCALARS:
                raise FormatError(f"the policy has a {kind}, which is not known here")

    def _closure(self, kind: str, node: JsonObject) -> Closure:
        statements = node["query"]["stmts"]
        uses = [self.statement(each) for each in statements]
        heads = Uses()
        if kind != "Every":
            for each in heads_of(node):
                self.gather(each, heads)
        names = set().union(*(each.reads.keys() | each.shared for each in (*uses, heads)))
        own = self.every(node) if kind == "Every" else []
        own += [found for each in statements for found in self.declared(each)]
        return Closure(kind, node, names - dict(own).keys())

    def _reference(self, expression: JsonObject, uses: Uses) -> list[JsonObject]:
        """Note which variables take members along a reference; return what it reads beside."""
        read: list[JsonObject] = []
        members: dict[str, int] = {}
        kind, node = next(iter(expression.items()))
        while kind in _REFERENCES:
            if kind == "RefBrack":
                variables, rest = pattern(node["index"])
                members |= dict(variables)
                read += rest
                if any(
                    part["value"] == ANY for name, part in walk([node["index"]]) if name == "Var"
                ):
                    uses.wild = node["span"]["line"]
            expression = node["refr"]
            kind, node = next(iter(expression.items()))
        for name, line in members.items():
            uses.reads.setdefault(name, line)
        if members:
            root = Uses()
            self.gather(expression, root)
            uses.binders.append(_Binder(root.reads.keys(), root.shared, members.keys()))
        return [expression, *read]

    def _match(
        self,
        target: JsonObject,
        value: JsonObject,
        uses: Uses,
        partners: Names = frozenset(),
    ) -> None:
        """Note that a pattern's variables are known as soon as a value is."""
        variables, rest = pattern(target)
        for name, line in variables:
            uses.reads.setdefault(name, line)
        for each in rest:
            self.gather(each, uses)
        inner = Uses()
        self.gather(value, inner)
        binds = {name for name, _ in variables}
        uses.binders.append(_Binder(inner.reads.keys(), inner.shared, binds, partners))

    def _expression(self, expression: JsonObject, uses: Uses) -> None:
        kind, node = next(iter(expression.items()))
        if kind == "AssignExpr":
            for left, right in _pairs(node["lhs"], node["rhs"]):
                sides = [{name for name, _ in pattern(side)[0]} for side in (left, right)]
                self._match(left, right, uses, sides[1])
                if node["op"] == "Eq":
                    self._match(right, left, uses, sides[0])
                else:
                    self.gather(right, uses)
        elif kind == "Call" and self._has_place_for_result(node):
            call = {"Call": {**node, "params": node["params"][:-1]}}
            self.gather(call, uses)
            self._match(node["params"][-1], call, uses, {ANY})  # never at once
        else:
            self.gather(expression, uses)

    def _ground(self, expression: JsonObject, uses: Uses, where: str) -> None:
        """Note what an expression reads that binds nothing."""
        inner = Uses()
        self.gather(expression, inner)
        if inner.wild is not None:
            raise FormatError(
                f"line {inner.wild}: the policy does not compile: var {ANY} is unsafe {where}",
                hint="to the engine not of it holds as soon as one member is not so: name a "
                "rule for what no member may be, and write not before its name",
            )
        uses.reads |= inner.reads
        uses.closures += inner.closures

    def _has_place_for_result(self, node: JsonObject) -> bool:
        name = dotted(self._syntax.own(path_of(node["fcn"]) or (None,)))
        known = {len(builtins.ALLOWED[name])} if name in builtins.ALLOWED else set()
        arities = self._syntax.functions.get(name, known)
        return len(node["params"]) - 1 in arities


def pattern(expression: JsonObject) -> tuple[list[tuple[str, int]], list[JsonObject]]:
    """Return what is bound when an expression is matched with a value, and what it reads.

    Returns:
        Names and lines of variables, and expressions.
    """
    variables, rest, waiting = [], [], [expression]
    while waiting:
        each = waiting.pop()
        kind, node = next(iter(each.items()))
        if kind == "Var":
            if node["value"] != ANY:
                variables.append((node["value"], node["span"]["line"]))
        elif kind == "Array":
            waiting += node["items"]
        elif kind == "Object":
            waiting += [value for _, _, value in node["fields"]]
            rest += [key for _, key, _ in node["fields"]]
        else:
            rest.append(each)
    return variables, rest


def heads_of(node: JsonObject) -> list[JsonObject]:
    """Return what a comprehension makes of each solution."""
    return [node[part] for part in ("term", "key", "value") if part in node]


def children(node: JsonObject) -> list[JsonObject]:
    """Return the expressions directly below one that is no reference and no comprehension."""
    found = [part for _, *both in node.get("fields", ()) for part in both]
    for name in _CHILDREN:
        child: Any = node.get(name)
        found += child if isinstance(child, list) else [child] if isinstance(child, dict) else []
    return found


def _pairs(left: JsonObject, right: JsonObject) -> Iterator[tuple[JsonObject, JsonObject]]:
    """Yield what is matched with what: the members of arrays one by one."""
    waiting = [(left, right)]
    while waiting:
        one, other = waiting.pop()
        if "Array" in one and "Array" in other:
            waiting += zip(one["Array"]["items"], other["Array"]["items"], strict=False)
        else:
            yield one, other
