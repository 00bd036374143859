# SPDX-License-Identifier: Apache-2.0
"""Every variable of a policy is bound by something, as OPA demands.

The engine does not look: a statement that reads a variable which nothing binds is undefined
to it, so that ``not`` of it holds, and a policy that means "no" says yes. Nor does it refuse
what OPA refuses because nobody could tell what it means.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from cocos._types import JsonObject
from cocos.errors import FormatError, did_you_mean
from cocos.policy._syntax import Rule, Syntax, walk
from cocos.policy._variables import (
    COMPREHENSIONS,
    SCALARS,
    Closure,
    Names,
    Reader,
    Uses,
    children,
    heads_of,
    pattern,
)

_ROOTS: Final = frozenset({"input", "data"})


def check(syntax: Syntax) -> None:
    """Refuse a policy that reads a variable which nothing binds.

    Raises:
        FormatError: it does; names variable and line.
        RecursionError: nested too deep.
    """
    for name, path in syntax.aliases.items():
        if (name in _ROOTS and path != (name,)) or name in syntax.names:
            raise FormatError(f"the policy imports something as {name}, which is something else")
    checked = _Safety(syntax)
    for rule in syntax.rules:
        checked.rule(rule)


class _Safety:
    def __init__(self, syntax: Syntax) -> None:
        self._reader = Reader(syntax)
        self._globals: Names = syntax.names | syntax.aliases.keys() | _ROOTS

    def rule(self, rule: Rule) -> None:
        """Check one definition of a rule."""
        if rule.form == "Default":
            self._arguments(rule, rule.node["args"])
            self._default(rule)
            return
        head = rule.node["head"][rule.form]
        arguments = self._arguments(rule, head.get("args") or ())
        known = self._globals | arguments
        # Brackets in its name, a set's member, a value.
        name = [node["index"] for kind, node in walk([head["refr"]]) if kind == "RefBrack"]
        name += [head["key"]] if head.get("key") else []
        value = [] if rule.value is None else [rule.value]
        if not rule.bodies:
            self._query([], known, known, [*name, *value])
        partial = "RefBrack" in head["refr"]  # a set has one body
        for number, body in enumerate(rule.bodies):
            own = body.get("assign")
            heads = [own["value"]] if own else value if number == 0 or partial else []
            statements = body["query"]["stmts"]
            for each, line in (
                found for part in statements for found in self._reader.declared(part)
            ):
                if each in arguments:
                    raise _twice(line, each)
            self._query(statements, known, known, [*name, *heads])

    def _arguments(self, rule: Rule, arguments: Iterable[JsonObject]) -> Names:
        found: Counter[str] = Counter()
        for each in arguments:
            variables, rest = pattern(each)
            found.update(name for name, _ in variables)
            if any(part.keys().isdisjoint(SCALARS) for part in rest):
                raise FormatError(
                    f"line {rule.line}: an argument of {rule.dotted} is neither name nor constant"
                )
        _check_names([(name, rule.line) for name in found])
        for name, count in found.items():
            if count > 1:  # to the engine they need not be equal
                raise FormatError(f"line {rule.line}: {rule.dotted} has the argument {name} twice")
        return found.keys()

    def _default(self, rule: Rule) -> None:
        waiting = [rule.node["value"]]
        comprehensions: list[JsonObject] = []
        while waiting:
            each = waiting.pop()
            kind, node = next(iter(each.items()))
            if kind in COMPREHENSIONS:
                comprehensions.append(each)
            elif kind in {"Array", "Set", "Object"}:
                waiting += children(node)
            elif kind not in SCALARS:
                raise FormatError(f"line {rule.line}: the default of {rule.dotted} is no constant")
        self._query([], self._globals, self._globals, comprehensions)

    def _query(
        self,
        statements: list[JsonObject],
        outside: Names,
        above: Names,
        heads: Iterable[JsonObject],
    ) -> None:
        """Check a body and what comes of it.

        Args:
            statements: Of the body.
            outside: Variables that are bound outside of it.
            above: Those of them that an ``every`` sees.
            heads: Expressions that are evaluated after it.
        """
        uses = [self._reader.statement(each) for each in statements]
        declared = self._declared(statements, uses)
        known: Names = outside - declared
        outside = known
        above = above - declared
        waiting: list[tuple[Uses, Names]] = []
        own = declared | {name for each in uses for name in each.reads}
        for each in uses:
            waiting.append((each, above))
            above = each.bound(above, own, outside) or above
        while waiting:
            still: list[tuple[Uses, Names]] = []
            for each, seen in waiting:
                after = each.bound(known, own)
                if after is None:
                    still.append((each, seen))
                else:
                    self._closures(each.closures, after, seen, own)
                    known = after
            if len(still) == len(waiting):
                raise _unsafe([each for each, _ in still], known, own)
            waiting = still
        last = Uses()
        for expression in heads:
            self._reader.gather(expression, last)
        after = last.bound(known, own)
        if after is None:
            raise _unsafe([last], known, own)
        self._closures(last.closures, after, above | (after - outside), own)

    def _declared(self, statements: Iterable[JsonObject], uses: Iterable[Uses]) -> Names:
        """Return the variables that a body declares, each once and before anything names it."""
        declared: set[str] = set()
        seen: set[str] = set()
        for statement, use in zip(statements, uses, strict=True):
            names = self._reader.declared(statement)
            _check_names(names)
            for name, line in names:
                if name in declared or name in seen:
                    raise _twice(line, name)
                declared.add(name)
            seen |= use.reads.keys() | use.shared
        return declared

    def _closures(
        self,
        closures: Iterable[Closure],
        known: Names,
        above: Names,
        own: Names,
    ) -> None:
        for each in closures:
            statements, line = each.node["query"]["stmts"], each.node["span"]["line"]
            if each.kind != "Every":
                self._query(statements, known, above, heads_of(each.node))
                continue
            late = (each.shared & (own | known)) - above
            if late:
                raise FormatError(
                    f"line {line}: every reads {min(late)}, which the engine binds later",
                    hint=f"bind {min(late)} above, by more than the name of another variable",
                )
            names = self._reader.every(each.node)
            _check_names(names)
            if len(dict(names)) < len(names):
                raise _twice(line, names[0][0])
            seen = above | dict(names).keys()
            self._query(statements, seen, seen, ())


def _twice(line: int, name: str) -> FormatError:
    return FormatError(f"line {line}: var {name} is declared where there is a {name} already")


def _check_names(declared: Iterable[tuple[str, int]]) -> None:
    for name, line in declared:
        if name in _ROOTS:
            raise FormatError(f"line {line}: a variable has the name {name}, which has a meaning")


def _unsafe(uses: Sequence[Uses], known: Names, own: Names) -> FormatError:
    missing: list[tuple[int, str]] = []
    for each in uses:
        missing += [(line, name) for name, line in each.reads.items() if name not in known]
        for closure in each.closures:
            line = closure.node["span"]["line"]
            missing += [(line, name) for name in (closure.shared & own) - known]
    # Those first that wait for no other one.
    bindable = {name for each in uses for binder in each.binders for name in binder.binds}
    line, name = min(missing, key=lambda found: (found[1] in bindable, found))
    return FormatError(
        f"the policy does not compile: line {line}: var {name} is unsafe, nothing binds it",
        hint=did_you_mean(name, {"true", "false", *known} - {name}),
    )
