# SPDX-License-Identifier: Apache-2.0
"""What the author of a policy cannot have meant, found when it is set.

Refused is what can never allow anything. What may have its reasons is a warning.
"""

import difflib
import re
from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cocos._types import JsonObject
from cocos.errors import ConfigError, FormatError, did_you_mean
from cocos.policy import builtins
from cocos.policy._syntax import PACKAGE, Path, Rule, Syntax, dotted, path_of, text_of, walk
from cocos.policy.appraisal import CLAIMS
from cocos.policy.documents import NONE_REGISTERED, NOTHING, Kind
from cocos.policy.engine import Policy
from cocos.policy.vocabulary import SHOWN, Shape

_ASKED: Final = {
    Kind.RESOURCE: ("allow", "findings"),
    Kind.ATTESTATION: ("trust_claims", "extensions", "findings"),
}
_FORMS: Final = {"Set": "a set", "Func": "a function", "Compr": "an object"}
_TYPES: Final = {"s": "text", "n": "a number", "a": "an array", "o": "an object", "t": "a set"}
_LITERALS: Final = {
    "String": "s",
    "RawString": "s",
    "Number": "n",
    "Array": "a",
    "Set": "t",
    "Object": "o",
}
# What a parameter takes: a set is often as good as an array.
_FITTING: Final = {"c": "at", "t": "at"}
_NEVER: Final = re.compile(r"recursion detected|rule conflicts|is unsafe|could not find function")
_NEAR: Final = 0.8
_MAX_WARNINGS: Final = 50
_MAX_NAMES: Final = 12
_MAX_STEPS: Final = 8  # from name to name


def review(text: str, kind: Kind) -> tuple[str, ...]:
    """Try a policy on empty documents, and look at what it names.

    Returns:
        Warnings, by line.

    Raises:
        FormatError: it can never allow anything.
    """
    policy = Policy(text)
    syntax = policy.syntax()
    _check_verdict(syntax, kind)
    found = [
        *_misspelt_rules(syntax, kind),
        *_strange_verdicts(syntax, kind),
        *_strange(syntax, kind),
    ]
    base = NOTHING if kind is Kind.RESOURCE else NONE_REGISTERED
    try:
        policy.check_base(base)
    except ConfigError as error:
        raise FormatError(error.message) from error
    try:
        policy.evaluate(_ASKED[kind], {}, base=base)
    except ConfigError as error:
        if _NEVER.search(error.message):
            raise FormatError(
                f"the policy does not compile: {error.message}", hint=error.hint
            ) from error
        found.append((0, f"it fails where input and data are empty: {error.message}"))
    return tuple(warning for _, warning in sorted(set(found)))[:_MAX_WARNINGS]


def _check_verdict(syntax: Syntax, kind: Kind) -> None:
    verdict = kind.verdict
    rules = [rule for rule in syntax.rules if rule.name == verdict]
    if not rules:
        near = difflib.get_close_matches(verdict, syntax.names, n=1)
        hint = f"it has {near[0]}, for which nobody asks" if near else f"{verdict} decides"
        raise FormatError(f"the policy has no rule {verdict}", hint=hint)
    wrong = [rule for rule in rules if not _is_value(rule)]
    if wrong:
        what = _FORMS.get(wrong[0].form, "a function")
        raise FormatError(
            f"line {wrong[0].line}: {verdict} is {what}, which decides nothing",
            hint=f"{verdict} if {{ … }}" if kind is Kind.RESOURCE else f"{verdict} := {{ … }}",
        )


def _is_value(rule: Rule) -> bool:
    return len(rule.path) == 1 and not rule.is_function and rule.form in {"Compr", "Default"}


def _misspelt_rules(syntax: Syntax, kind: Kind) -> Iterator[tuple[int, str]]:
    """Yield rules that nothing asks for and that are named nearly like one that is."""
    used = set()
    for rule in syntax.rules:
        for part, node in walk([rule.value, rule.bodies]):
            used.add(syntax.own(path_of({part: node}) or (None,))[0])
    for rule in syntax.rules:
        if rule.name in used or rule.name in _ASKED[kind] or rule.is_function:
            continue
        near = difflib.get_close_matches(rule.name, _ASKED[kind], n=1, cutoff=_NEAR)
        if near:
            yield _line(rule.line, f"nobody asks for {rule.name}: did you mean {near[0]}?")


def _strange_verdicts(syntax: Syntax, kind: Kind) -> Iterator[tuple[int, str]]:
    """Yield values of the rule that decides that decide nothing."""
    for rule in syntax.rules:
        if rule.name != kind.verdict or rule.value is None:
            continue
        literal, node = next(iter(rule.value.items()))
        if kind is Kind.RESOURCE and literal in {*_LITERALS, "Null"}:
            yield _line(rule.line, "only true allows, and this is something else")
        if kind is Kind.ATTESTATION and literal == "Object":
            for claim in (text_of(name) for _, name, _ in node["fields"]):
                if claim is not None and claim not in CLAIMS:
                    hint = did_you_mean(claim, CLAIMS) or f"they are {', '.join(CLAIMS)}"
                    yield _line(rule.line, f"no trust claim is called {claim}: {hint}")


def _strange(syntax: Syntax, kind: Kind) -> Iterator[tuple[int, str]]:
    """Yield what names nothing that is shown, and what cannot fit."""
    rules_for = _rules_that_are_paths(syntax)
    for rule in syntax.rules:
        names = _Names(syntax, kind, rules_for, rule)
        for part, node in walk([rule.node]):
            if part in {"RefDot", "RefBrack"}:
                yield from names.unknown({part: node}, node["span"]["line"])
            elif part == "BoolExpr":
                yield from names.never_equal(node)
            elif part == "query":
                yield from names.missing_below_not(node["stmts"])
        for call in syntax.calls(rule.node):
            wanted = builtins.ALLOWED.get(call.name)
            if wanted is None or call.name in syntax.functions:
                continue
            for place, (letter, argument) in enumerate(zip(wanted, call.arguments, strict=False)):
                got = names.letter(argument)
                if "*" in {letter, got} or got in _FITTING.get(letter, letter):
                    continue
                yield _line(
                    call.line,
                    f"{call.name} fails: argument {place + 1} is {_TYPES[got]}, "
                    f"not {_TYPES.get(letter, 'an array or a set')}",
                )


def _rules_that_are_paths(syntax: Syntax) -> dict[str, Path | None]:
    """Return rules such as ``cpu := input.submods.cpu0``, and what they stand for."""
    definitions = Counter(rule.name for rule in syntax.rules)
    found: dict[str, Path | None] = {}
    for rule in syntax.rules:
        path = path_of(rule.value) if rule.value is not None and _is_value(rule) else None
        if definitions[rule.name] == 1:
            found[rule.name] = path
    return found


class _Names:
    """What names stand for in one rule."""

    def __init__(
        self, syntax: Syntax, kind: Kind, rules: dict[str, Path | None], rule: Rule
    ) -> None:
        self._syntax = syntax
        self._shown = SHOWN[kind]
        local: dict[str, Path | None] = {}
        for name, path in self._assigned(rule):
            local[name] = path if name not in local else None
        self._stand_for = ChainMap(local, rules)

    def _assigned(self, rule: Rule) -> Iterator[tuple[str, Path | None]]:
        head = rule.node.get("head", {}).get(rule.form, rule.node)
        for part, node in walk(head.get("args")):
            if part == "Var":
                yield node["value"], None
        for part, node in walk(rule.node):
            if part == "AssignExpr" and "Var" in node["lhs"] and node["op"] == "ColEq":
                yield node["lhs"]["Var"]["value"], path_of(node["rhs"])
            elif part in {"SomeIn", "Every"}:
                collection = path_of(node["collection" if part == "SomeIn" else "domain"])
                if part == "Every":
                    name = self._syntax.text(node["value"])
                elif "Var" in node["value"]:
                    name = node["value"]["Var"]["value"]
                else:
                    continue
                yield name, None if collection is None else (*collection, None)
            elif part == "SomeVars":
                for span in node["vars"]:
                    yield self._syntax.text(span), None

    def resolved(self, expression: JsonObject) -> Path | None:
        """Return the path from ``input`` or ``data`` that an expression is, if it is one."""
        path = path_of(expression)
        for _ in range(_MAX_STEPS):
            if not path or path[0] is None:
                return None
            if path[0] in self._stand_for:
                stands_for = self._stand_for[path[0]]
            elif path[0] in self._syntax.aliases:
                stands_for = self._syntax.aliases[path[0]]
            else:
                return path if path[0] in self._shown else None
            if stands_for is None:
                return None
            path = (*stands_for, *path[1:])
        return None

    def unknown(self, expression: JsonObject, line: int) -> Iterator[tuple[int, str]]:
        """Yield a warning if an expression names what is not shown."""
        path = self.resolved(expression)
        if path is None:
            return
        if path[: len(PACKAGE)] == PACKAGE:
            name = path[2] if len(path) > len(PACKAGE) else None
            if name is not None and name not in self._syntax.names:
                hint = did_you_mean(name, self._syntax.names)
                yield _line(line, f"the policy has no rule {name}" + (f": {hint}" if hint else ""))
            return
        shape = self._shown[str(path[0])]
        for place, name in enumerate(path[1:], start=1):
            if shape.members is None:
                return
            if name is None or name not in shape.members:
                if name is not None:
                    problem = _no_member(path[: place + 1], name, shape)
                    if problem:
                        yield _line(line, problem)
                        return
                if shape.others is None:
                    return
                shape = shape.others
            else:
                shape = shape.members[name]

    def shape(self, expression: JsonObject) -> Shape | None:
        """Return what is known of an expression."""
        path = self.resolved(expression)
        if path is None:
            return None
        shape: Shape | None = self._shown[str(path[0])]
        for name in path[1:]:
            if shape is None or shape.members is None:
                return None
            shape = shape.members.get(name, shape.others) if name else shape.others
        return shape

    def letter(self, expression: JsonObject) -> str:
        """Return the type of an expression."""
        literal = _LITERALS.get(next(iter(expression)))
        if literal is not None:
            return literal
        shape = self.shape(expression)
        return "*" if shape is None else shape.letter

    def never_equal(self, node: JsonObject) -> Iterator[tuple[int, str]]:
        """Yield a warning if a text is compared with what it never is."""
        for one, other in ((node["lhs"], node["rhs"]), (node["rhs"], node["lhs"])):
            text, shape = text_of(one), self.shape(other)
            known = shape.values if shape is not None and node["op"] in {"Eq", "Ne"} else ()
            if text is not None and known and text not in known:
                hint = did_you_mean(text, known) or f"it is one of {', '.join(sorted(known))}"
                yield _line(node["span"]["line"], f'it is never "{text}": {hint}')

    def missing_below_not(self, statements: Iterable[JsonObject]) -> Iterator[tuple[int, str]]:
        """Yield a warning where ``not`` holds because what it compares is not there.

        OPA denies there: it looks up first what a function is called with.
        """
        asked: set[Path] = set()
        below: list[JsonObject] = []
        for each in statements:
            literal = each["literal"]
            if "NotExpr" in literal:
                below += _operands(literal["NotExpr"]["expr"])
            else:
                asked.update(path for path in map(self.resolved, _references([literal])) if path)
        for reference in below:
            path = self.resolved(reference)
            if path is None or path[0] != "input":
                continue
            if not any(other[: len(path)] == path for other in asked):
                line = next(iter(reference.values()))["span"]["line"]
                yield _line(
                    line, f"not holds here where {dotted(path)} is missing, too: bind it above"
                )


def _operands(expression: JsonObject) -> Iterator[JsonObject]:
    """Yield the references that functions and operators below a ``not`` are given."""
    kind, node = next(iter(expression.items()))
    equal = kind == "BoolExpr" and node["op"] == "Eq"
    for each in (node["lhs"], node["rhs"]) if equal else (expression,):
        # Of what is itself asked for, or equal to something: what it is asked for by.
        yield from _references(_indexes(each) if _is_reference(each) else [each])


def _indexes(reference: JsonObject) -> list[JsonObject]:
    return [node["index"] for kind, node in walk([reference]) if kind == "RefBrack"]


def _is_reference(expression: JsonObject) -> bool:
    return not expression.keys().isdisjoint({"RefDot", "RefBrack"})


def _references(nodes: list[JsonObject]) -> Iterator[JsonObject]:
    """Yield whole references, outside of comprehensions and ``every``."""
    waiting: list[Any] = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict) and _is_reference(node):
            yield node
            waiting += _indexes(node)
        elif isinstance(node, dict):
            waiting += [part for name, part in node.items() if name not in {"query", "fcn"}]
        elif isinstance(node, list):
            waiting += node


def _no_member(path: Path, name: str, shape: Shape) -> str | None:
    known = shape.members or {}
    if shape.others is not None:
        # Any name may be there; one that is nearly a known one is hardly meant.
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        return f"{dotted(path)} is nearly a name that is there: {near[0]}" if near else None
    if path == ("data", "reference_values") or name == "reference":
        return f"there is no {dotted(path)}: {builtins.HELPER}(name) returns reference values"
    # pcr4 is pcr04, whichever else is as near.
    same = [each for each in known if _plain(each) == _plain(name)]
    hint = f"did you mean {same[0]}?" if same else did_you_mean(name, known)
    rest = f", but {', '.join(known)}" if len(known) <= _MAX_NAMES else ""
    return f"there is no {dotted(path)}" + (f": {hint}" if hint else rest)


def _plain(name: str) -> str:
    return re.sub(r"[-_ .]|(?<!\d)0+(?=\d)", "", name.lower())


def _line(line: int, warning: str) -> tuple[int, str]:
    return line, f"line {line}: {warning}"
