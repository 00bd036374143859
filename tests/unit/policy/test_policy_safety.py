# SPDX-License-Identifier: Apache-2.0
"""Variables that nothing binds: to the engine they are no, and so `not` of them is yes.

What is refused here OPA refuses, too, except where a line says otherwise.
"""

import os
import re
import tempfile
from typing import Any

import pytest
from _rego_cases import rego_cases
from regorus import Engine

from cocos.errors import FormatError
from cocos.host.policies._worker import Worker
from cocos.policy import _safety, builtins
from cocos.policy._syntax import Syntax
from cocos.policy.documents import NOTHING, Kind
from cocos.policy.engine import Policy

HEAD = "package policy\nimport rego.v1\ndefault allow := false\n"

UNBOUND = [
    # A function's body, its result, its `else`.
    ("f(x) if { some i; i > 2 }\nallow if not f(1)", "i"),
    ("f(x) := y\nallow if not f(1)", "y"),
    ("f(x) := y if { x == 1 }\nallow if not f(1)", "y"),
    ("f(x) := 1 if { x == 2 } else := y\nallow if not f(1)", "y"),
    ("f(x) := 1 if { x == 2 } else := 2 if { some y; y > x }\nallow if not f(1)", "y"),
    ("f(x) if { some i; i > 2 }\nallow if input.nobody.calls.it", "i"),
    # A rule's.
    ("a if { some i; i > 2 }\nallow if not a", "i"),
    ("a if { i > 2 }\nallow if not a", "i"),
    ("a if { false; some i; i > 2 }\nallow if not a", "i"),
    ("a := x + 1\nallow if not a", "x"),
    ("a := x + 1 if true\nallow if not a", "x"),
    ("a := 1 if { input.zz } else := y if { true }\nallow if not a", "y"),
    ("p contains x if { true }\nallow if count(p) == 0", "x"),
    ("p contains x if { some x; x > 1 }\nallow if count(p) == 0", "x"),
    ("p contains x\nallow if count(p) == 0", "x"),
    ("p[x] := 1 if { true }\nallow if count(p) == 0", "x"),
    ("p[x].y := 1 if { true }\nallow if count(p) == 0", "x"),
    ("p[x] contains 1 if { true }\nallow if count(p) == 0", "x"),
    ("p[x] := y if { some x in [1]; some y; y > 1 }\nallow if count(p) == 0", "y"),
    ("p[x] := y if { x := 1; y := 5; false } { x := 2 }\nallow if not p[2]", "y"),
    # Negation binds nothing.
    ("allow if not i", "i"),
    ("allow if { some i; not i == 2 }", "i"),
    ("allow if not input.x[i] == 2", "i"),
    ("allow if { not input.x[[i, 1]] }", "i"),
    ("allow if { not input.x == [1 | input.y == z] }", "z"),
    ('allow if not input.submods[_]["ear.status"] == "contraindicated"', "_"),
    ("allow if not f(input.x[_])\nf(x) if x > 1", "_"),
    ("allow if not input.x[[_, 1]]", "_"),
    ("allow if { i := 1; not input.x[[_, i]] }", "_"),
    ("allow if not _", "_"),
    # Comprehensions: bodies, then heads; and what they share with the outside.
    ("allow if { count([x | x > 1]) == 0 }", "x"),
    ("allow if { count([1 | some x; x > 1]) == 0 }", "x"),
    ("a if { some x; count([1 | x > 1]) == 0 }\nallow if not a", "x"),
    ("allow if { count({x | some x; x > 1}) == 0 }", "x"),
    ("allow if { count({x: 1 | some x; x > 1}) == 0 }", "x"),
    ("allow if { count([y | x := 1]) == 0 }", "y"),
    ("allow if { count({y | x := 1}) == 0 }", "y"),
    ("allow if { count({y: 1 | x := 1}) == 0 }", "y"),
    ("allow if { count({1: y | x := 1}) == 0 }", "y"),
    ("a := [1 | some x; x > 1]\nallow if count(a) == 0", "x"),
    ("a := [x | x := y]\nallow if count(a) == 0", "y"),
    ("a contains [1 | some x; x > 1]\nallow if a", "x"),
    ("default a := [1 | some x; x > 1]\nallow if count(a) == 0", "x"),
    ("allow if { y = [x | x = y]; count(y) == 0 }", "y"),
    ("allow if { y = [1 | z = y]; z = y }", "y"),
    ("allow if { count([1 | some a in [1]; count([2 | some b; b > a]) == 0]) == 1 }", "b"),
    # every, some … in
    ("allow if { every x in [y] { x } }", "y"),
    ("a if { some y; every x in [y] { x } }\nallow if not a", "y"),
    ("allow if { every x in [1] { y > x } }", "y"),
    ("allow if not e\ne if { every x in [1] { some y; y > x } }", "y"),
    ("allow if { every k, v in {1: 2} { some y; y > k; v } }", "y"),
    ("a if { some x in y }\nallow if not a", "y"),
    ("a if { some y; some x in y }\nallow if not a", "y"),
    ("a if { some x in [1]; x == y }\nallow if not a", "y"),
    ("a if { some [x, f(y)] in [[1, 2]] }\nf(y) := y\nallow if not a", "y"),
    ('a if { some {k: v} in [{"a": 1}]; v }\nallow if not a', "k"),
    ("a if { 1 in x }\nallow if not a", "x"),
    ("a if { some i; [i, 2] in [[1, 2]] }\nallow if not a", "i"),
    # with
    ("a if { true with input.x as y }\nallow if not a", "y"),
    ("a if { some y; input.x with input.x as y }\nallow if not a", "y"),
    ("a if { input.x with input.x as [1 | some y; y > 1] }\nallow if not a", "y"),
    ("a if { input.x with input.x as input.y[i] }\nallow if not a", "i"),
    ("a if { input.x with input.x as input.y[_] }\nallow if not a", "_"),
    # Unification of two that nobody knows, also member by member; keys are never bound.
    ("a if { some x, y; x = y }\nallow if not a", None),
    ("a if { some x; x = x }\nallow if not a", None),
    ("a if { some x, y; [x, 1] = [y, 1] }\nallow if not a", None),
    ("a if { x := x }\nallow if not a", None),
    ("a if { x = y + 1; y = x - 1 }\nallow if not a", None),
    ('a if { some k; {k: 1} = {"a": 1} }\nallow if not a', "k"),
    ('a if { some k; {k: 1} == {"a": 1} }\nallow if not a', "k"),
    # Functions take what others bind, and give only what their place for a result has.
    ('a if { some x; startswith(x, "a") }\nallow if not a', "x"),
    ('a if { some x; startswith("a", x) }\nallow if not a', "x"),
    ('a if { some x; lower(x, "a") }\nallow if not a', "x"),
    ("a if { some x; y := lower(x) }\nallow if not a", "x"),
    ("a if { some x, y; y = lower(x); x = lower(y) }\nallow if not a", "[xy]"),
    ("a if { some x, y; lower(x, y) }\nallow if not a", "[xy]"),
    ("a if { some x, y; f(x, y) }\nf(z) := z\nallow if not a", "[xy]"),
    ("a if { some x; lower(lower(x)) }\nallow if not a", "x"),
    # References: the variable that goes through something does not name it, too.
    ("a if { some i; i[i] == 1 }\nallow if not a", "i"),
    ("a if { some i; f(i)[i] == 1 }\nf(x) := [x]\nallow if not a", "i"),
    ("a if { some i; input.x[i + 1] }\nallow if not a", "i"),
    ("a if { input.x[i] > j }\nallow if not a", "j"),
]


@pytest.mark.parametrize(("text", "variable"), UNBOUND)
def test_a_variable_that_nothing_binds_is_refused_by_its_name(
    text: str, variable: str | None
) -> None:
    with pytest.raises(FormatError) as refused:
        Policy(HEAD + text + "\n")
    assert re.search(r"line [45]: ", refused.value.message)
    if variable is not None:
        assert re.search(rf"\b(?:{variable})\b`? is unsafe", refused.value.message)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # To the engine each of them is something, and something else than one may think.
        ("f(input) := input.x\nallow if not f({})", "input"),
        ("allow if { every data in [1] { data.plugin } }", "data"),
        ("a if { some input in [{}]; input.bad }\nallow if not a", "input"),
        ("a if { some data; data = 1 }\nallow if not a", "data"),
        ("a if { [input, 1] := [1, 1] }\nallow if not a", "input"),
        ("default f(input) := true\nallow if f({})", "input"),
        ("f(input.x) := 1\nallow if not f(1)", "neither name nor constant"),
        ("f(x, x) := 1\nallow if f(1, 2)", "x twice"),
        ("f([x, x]) := 1\nallow if f([1, 2])", "x twice"),
        # Declared twice, or after somebody meant another one: OPA refuses it, too.
        ("a if { x := 1; x := 2 }\nallow if not a", "x|local"),
        ("a if { some x; x := 1 }\nallow if not a", "x is declared"),
        ("a if { some x in [1]; some x in [2] }\nallow if not a", "x"),
        ("f(x) if { some x; x = 2 }\nallow if f(1)", "x is declared"),
        ("f(x) if { some x in [2]; x == 2 }\nallow if f(1)", "x"),
        ("r := 2\na if { every x in [1] { x < r }; r := 3 }\nallow if a", "r is declared"),
        ("r := 2\na if { r == 2; r := 3 }\nallow if not a", "`r` used before"),
        ("r := 2\na if { count([1 | r == 2]) == 1; r := 3 }\nallow if not a", "`r` used before"),
        ("a if { every x, x in [4] { x } }\nallow if a", "x is declared"),
        ("a if { some x, x in [4] }\nallow if a", "x is declared"),  # false to OPA
        ("default a := input.x\nallow if not a", "no constant"),
        ("default a := [count(input.x)]\nallow if not a", "no constant"),
        ("default a := -input.x\nallow if not a", "no constant"),
        ("default f(x) := x\nallow if not f(1)", "no constant"),
        # every sees nothing that the engine binds later: legal in OPA.
        ("a if { some y; every x in [1] { x < y }; y = 4 }\nallow if not a", "reads y"),
        ("a if { some y, z; y = 4; z = y; every x in [1] { x < z } }\nallow if not a", "reads z"),
        ("a if { some y; count([1], y); every x in [1] { x <= y } }\nallow if not a", "reads y"),
        (
            "a if { some y; c := [1 | every x in [1] { x < y }]; y = 4; c != [] }\nallow if not a",
            "reads y",
        ),
    ],
)
def test_what_means_something_else_than_it_says_is_refused(text: str, said: str) -> None:
    with pytest.raises(FormatError, match=rf"line [45]: .*{said}"):
        Policy(HEAD + text + "\n")


@pytest.mark.parametrize(
    "line", ["import input.a as data", "import data.a as input", "import input.allow"]
)
def test_an_import_takes_nobodys_name(line: str) -> None:
    with pytest.raises(FormatError):
        Policy(f"package policy\n{line}\nallow := true\n")


@pytest.mark.parametrize(
    "body",
    [
        "some i; input.x[i] == 2; i == 1",
        "input.x[i] == input.x[j]; i == j",
        "f(input.x[i]); i == 1",
        "f(2, r); r == true",
        "count(input.x, n); n == 3",
        "some i, j; [i, [1, j]] = [2, [1, 3]]; i < j",
        "some i, j; [i, 1] = [2, j]; i > j",
        "some i, j; i = j; j = 1",
        '{"a": k} = {"a": 1}; k == 1',
        "x = y; y = 1; x == 1",
        "not any_bad",
        "some x in input.x; not x == 9; not f(x + 7)",
        "y := 4; every x in input.x { x < y; z := x + 1; z <= y }",
        "y := top; every x in input.x { x < y }",
        "some y in [4]; every i, x in input.x { x < y; i < y }",
        "g(4, input.x)",
        "some i; input.x[i] == 3; every x in [1] { x < i }",
        "c := [x | x := input.x[_]; x < y]; y = 3; c == [1, 2]",
        "c := {i: x | some i, x in input.x}; c[0] == 1",
        "p[[1, n]]; n == 2",
        "{1, 2}[n]; n == 2",
        "[1, 2][n] == 2; n == 1",
        "input.x[_] == 3",
        "every _ in [1] { true }",
        "_ = input.x",
        "some _ in input.x; some _ in input.x",
        "not input.x[7]",
        "some y; 4 = y; every x in [1] { x < y }",
        "inside == [1]",
        "negative == [-1, -2]",
        "branch",
        "input.y with input as {`y`: top}",
        "object.get({}, `a`, [x | some x in [1]]) == [1]",
    ],
)
def test_what_is_bound_may_be_read(body: str) -> None:
    rest = (
        "top := 5\nf(x) if x == 2\nany_bad if { some x in input.x; x > 8 }\np contains [1, 2]\n"
        "g(y, xs) if { every x in xs { x < y } }\n"
        "inside := [1 | every x in [1] { x < y; x < top }] if { y := 4 }\n"
        "default negative := [-1, -2]\n"
        "branch := y if { y := 1; false } else if true\n"
    )
    policy = Policy(f"{HEAD}allow if {{ {body} }}\n{rest}")
    assert policy.evaluate(["allow"], {"x": [1, 2, 3]}) == {"allow": True}


def test_nothing_legal_in_the_public_cases_is_refused() -> None:
    # Two with a name for an import and for a rule, where the engine and OPA differ, and
    # variables called input or data.
    refused = {f"import/tests.yaml#{number}" for number in (5, 7, 22, 23)}
    refused |= {f"rego.v1/tests.yaml#{number}" for number in (35, 37)}
    found, seen = set(), 0
    for case in rego_cases():
        if case.given.get("skip") or case.given.get("error"):
            continue
        for module in case.given["modules"]:
            syntax = _syntax(module)
            if syntax is None or _calls_what_is_refused(syntax):
                continue
            # Rules of other modules of the same package are known, too.
            for other in case.given["modules"]:
                if (known := _syntax(other)) and module.split()[:2] == other.split()[:2]:
                    syntax.names.update(known.names)
            seen += 1
            try:
                _safety.check(syntax)
            except FormatError:
                found.add(case.name)
    assert seen > 300
    assert found == refused


def _syntax(module: str) -> Syntax | None:
    for old in (False, True):
        engine = Engine()
        engine.set_rego_v0(old)
        try:
            engine.add_policy("m.rego", module)
        except RuntimeError:
            continue
        return Syntax(module, engine.get_ast_as_json())
    return None


def _calls_what_is_refused(syntax: Syntax) -> bool:
    calls = {call.name for rule in syntax.rules for call in syntax.calls(rule.node)}
    return not calls.isdisjoint(builtins.REFUSED)


def test_what_the_engine_cannot_order_denies_whoever_else_lets_it_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = f"{HEAD}f(x) if {{ some i; i > 2 }}\nallow if not f(1)\n"
    monkeypatch.setattr("cocos.policy._safety.check", lambda _syntax: None)
    with tempfile.TemporaryFile() as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            judge = Worker(lambda: os.lseek(2, 0, os.SEEK_CUR))
            ask: dict[str, Any] = {
                "policy": "p",
                "text": text,
                "base": "b",
                "data": NOTHING.text,
                "request": None,
            }
            ask |= {"rules": ["allow"], "document": {}, "explain": False}
            for kind in (None, None, Kind.RESOURCE):
                answer = judge.answer({**ask, "kind": kind})
                assert answer["error"] == "format"
                assert "in which order" in answer["message"]
            assert judge.answer({**ask, "kind": None, "text": None}) == {"unknown": True}
        finally:
            os.dup2(before, 2)
            os.close(before)
