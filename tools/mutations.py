# SPDX-License-Identifier: Apache-2.0
"""Small faults that can be put into a module, one at a time: a pure function of its text.

What is left alone: annotations, decorators, docstrings, texts, log lines, and what an
exception says. A fault keeps every other byte of the module as it is.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

MODULE: Final = "<module>"
"""What the code outside of functions is called."""

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Pow: ast.Mult,
}
_NAMES: Final = {"any": "all", "all": "any", "min": "max", "max": "min"}
_LOGGERS: Final = {"_log", "log", "logger"}
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_DELETED: Final = (ast.Raise, ast.AugAssign, ast.Delete, ast.Continue, ast.Break)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One fault.

    Attributes:
        function: Qualified name of the outermost function that it is in, or :data:`MODULE`.
        index: Which one of the module's functions that is, in the order of their ``def``;
            -1 outside of functions. Names can stand twice.
        line: Where, from 1.
        before: The line as it is, without indentation.
        after: What stands there instead.
        source: The whole module with the fault.
    """

    function: str
    index: int
    line: int
    before: str
    after: str
    source: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What tells it from others, whatever else changes in the module."""
        return self.function, self.before, self.after


def outermost(tree: ast.Module) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return the functions that are in no other one, with their qualified names."""
    found = []

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, _FUNCTIONS):
                found.append((prefix + node.name, node))
            elif isinstance(node, ast.ClassDef):
                walk(node.body, f"{prefix}{node.name}.")
            else:
                for name in ("body", "orelse", "finalbody"):
                    walk(getattr(node, name, []), prefix)

    walk(tree.body, "")
    return found


def mutations(source: str) -> list[Mutation]:
    """Return all faults of a module, each of which is still a module.

    Args:
        source: Its text.

    Raises:
        SyntaxError: it is none.
    """
    return list(_Text(source).mutations())


class _Text:
    def __init__(self, source: str) -> None:
        self._data = source.encode()
        self._starts = [0]
        for line in self._data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._tree = ast.parse(source)

    def mutations(self) -> Iterator[Mutation]:
        inside: dict[ast.AST, tuple[str, int]] = {}
        for index, (name, function) in enumerate(outermost(self._tree)):
            for statement in function.body:
                for node in ast.walk(statement):
                    inside[node] = (name, index)
        for node, new in _faults(self._tree):
            name, index = inside.get(node, (MODULE, -1))
            mutation = self._apply(node, new, name, index)
            if mutation is not None:
                yield mutation

    def _apply(self, node: ast.AST, new: str, name: str, index: int) -> Mutation | None:
        place = cast("ast.expr", node)
        begin = self._starts[place.lineno - 1] + place.col_offset
        end = self._starts[(place.end_lineno or 0) - 1] + (place.end_col_offset or 0)
        changed = self._data[:begin] + new.encode() + self._data[end:]
        if ast.dump(ast.parse(changed)) == ast.dump(self._tree):
            return None
        first, last = self._starts[place.lineno - 1], self._starts[place.end_lineno or 0]
        before = " ".join(self._data[first:last].decode().split())
        after = " ".join(changed[first : last + len(changed) - len(self._data)].decode().split())
        return Mutation(name, index, place.lineno, before, after, changed.decode())


def _faults(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield pairs of a node and the text to put in its place."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and _root(node.test) == "TYPE_CHECKING":
            continue
        yield from _of_statement(node)
        yield from _of_expression(node)
        todo += reversed(list(_looked_at(node)))


def _looked_at(node: ast.AST) -> Iterator[ast.AST]:
    """Yield those children in which faults are of interest."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.Expr) and _root(node.value) in _LOGGERS:
        return
    skipped = {"annotation", "returns", "decorator_list", "bases", "type"}
    if isinstance(node, ast.ClassDef):
        skipped.add("keywords")
    if isinstance(node, ast.If) and _only_raises(node):
        skipped.add("body")  # without it is the same as never
    for name, value in ast.iter_fields(node):
        if name in skipped:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _only_raises(node: ast.If) -> bool:
    return all(isinstance(each, ast.Raise) for each in node.body)


def _root(node: ast.AST) -> str:
    """Return the name that a chain of attributes, calls and awaits begins with."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Await):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _of_statement(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.If):
        yield node.test, "False"
        if not _only_raises(node):
            yield node.test, "True"
    elif isinstance(node, ast.IfExp):
        yield node.test, "False"
        yield node.test, "True"
    elif isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield test, "True"
    elif isinstance(node, _DELETED):
        yield node, "pass"
    elif isinstance(node, ast.Expr) and _root(node.value) not in _LOGGERS:
        if isinstance(node.value, ast.Call | ast.Await):
            yield node, "pass"
    elif isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple):
        yield node, "pass"


def _of_expression(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    match node:
        case ast.Compare():
            for number, operator in enumerate(node.ops):
                compared = copy.deepcopy(node)
                compared.ops[number] = _COMPARISONS[type(operator)]()
                yield node, _text(compared)
        case ast.BoolOp():
            for number in range(len(node.values)):
                fewer = copy.deepcopy(node)
                del fewer.values[number]
                yield node, _text(fewer if len(fewer.values) > 1 else fewer.values[0])
        case ast.UnaryOp(op=ast.Not()):
            yield node, _text(node.operand)
        case ast.BinOp() if type(node.op) in _OPERATORS and not _is_of_types(node):
            other = copy.deepcopy(node)
            other.op = _OPERATORS[type(node.op)]()
            yield node, _text(other)
        case ast.Constant(value=bool()):
            yield node, repr(not node.value)
        case ast.Constant(value=int() | float() as number):
            yield node, repr(number + 1)
        case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
            yield node.func, _NAMES[name]


def _is_of_types(node: ast.BinOp) -> bool:
    """Tell whether this is a union, as in ``isinstance(x, str | bytes)``, or text."""
    if isinstance(node.left, ast.Constant | ast.JoinedStr) and not isinstance(
        getattr(node.left, "value", None), int | float | bytes
    ):
        return True
    names = {"str", "bytes", "int", "float", "bool", "dict", "list", "tuple", "None"}
    return isinstance(node.op, ast.BitOr) and any(
        (isinstance(each, ast.Name) and (each.id in names or each.id[:1].isupper()))
        or (isinstance(each, ast.Constant) and each.value is None)
        or (isinstance(each, ast.Attribute) and each.attr[:1].isupper() and not each.attr.isupper())
        for each in (node.left, node.right)
    )


def _text(node: ast.AST) -> str:
    return f"({ast.unparse(node)})"
