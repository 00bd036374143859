# SPDX-License-Identifier: Apache-2.0
"""What policies mean: every public case of Trustee's engine, on the engine that we use.

The cases have no word on some of the functions that policies may call; those are below,
with what the documentation of Rego says of them.
"""

import json
import re
from typing import Any

import pytest
from _rego_cases import Case, rego_cases

from cocos.policy import builtins
from cocos.policy.documents import NONE_REGISTERED
from cocos.policy.engine import Policy

OTHERWISE = {
    # The cases of an evaluation that goes on after an error: ours never does (no verdict
    # hangs on one), nor does Trustee's.
    "call/or.yaml#7",
    "import/tests.yaml#31",
    "nonstrict/tests.yaml#0",
    "nonstrict/tests.yaml#2",
    # A limit of time of the engine's own, which Python cannot set: a worker's is the kernel's.
    "limits/execution_timer.yaml#0",
    "limits/execution_timer.yaml#1",
    "limits/execution_timer.yaml#3",
    # A query of two statements has several rows, of which this test sees the last.
    "engine/tests.yaml#4",
}
"""Cases that cannot agree, and why; all of them, and no other."""

OF_NO_CASE: dict[str, Any] = {
    'base64.decode("YWJj")': "abc",
    'base64.encode("abc?")': "YWJjPw==",
    'base64.is_valid("YWJj")': True,
    'indexof_n("abcabc", "c")': [2, 5],
    "intersection({{1, 2}, {2, 3}})": [2],
    'json.is_valid("{")': False,
    'json.marshal({"b": [1, null], "a": "ä"})': '{"a":"ä","b":[1,null]}',
    'json.marshal_with_options({"a": 1}, {"pretty": true, "indent": " "})': '{\n "a": 1\n}',
    'json.remove({"a": {"b": 1, "c": 2}}, ["a/b"])': {"a": {"c": 2}},
    "numbers.range_step(1, 6, 2)": [1, 3, 5],
    'object.subset({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 2}})': True,
    'object.union({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}})': {"a": 1, "b": {"c": 2, "d": 3}},
    'object.union_n([{"a": 1}, {"a": 2}, {"b": 3}])': {"a": 2, "b": 3},
    'regex.find_all_string_submatch_n("a(x*)b", "-axxb-ab-", -1)': [["axxb", "xx"], ["ab", ""]],
    'regex.find_n("a.", "paranormal", 2)': ["ar", "an"],
    'regex.is_valid("(")': False,
    'regex.match("^[a-f0-9]{4}$", "00ff")': True,
    'regex.replace("xaax", "a", "b")': "xbbx",
    'regex.split("a", "banana")': ["b", "n", "n", ""],
    'regex.template_match("urn:foo:{.*}", "urn:foo:bar:baz", "{", "}")': True,
    'replace("a.b.c", ".", "-")': "a-b-c",
    'startswith("abc", "ab")': True,
    'strings.any_prefix_match(["xa", "b"], ["a", "x"])': True,
    'strings.any_suffix_match("abc", ["b", "bc"])': True,
    'strings.count("cheese", "e")': 3,
    'strings.replace_n({"<": "&lt;", ">": "&gt;"}, "<a>")': "&lt;a&gt;",
    'strings.reverse("aß€")': "€ßa",
    'substring("aß€b", 1, 2)': "ß€",
    'trim("xxaxx", "x")': "a",
    'trim_left("xxaxx", "x")': "axx",
    'trim_prefix("xxa", "x")': "xa",
    'trim_right("xxaxx", "x")': "xxa",
    'trim_space("\\t a \\n")': "a",
    'trim_suffix("axx", "x")': "ax",
    "union({{1}, {2}})": [1, 2],
    'query_reference_value("nothing")': None,
}


def runnable() -> list[Case]:
    # Those that their authors skip, too, are no evidence.
    return [case for case in rego_cases() if not case.given.get("skip")]


def test_every_case_says_what_it_should() -> None:
    cases = runnable()
    assert len(cases) > 600
    assert {case.name for case in cases if not case.agrees()} == OTHERWISE


def test_every_function_that_policies_may_call_is_in_a_case_or_here() -> None:
    said = {case.name: case.text for case in runnable() if case.name not in OTHERWISE}
    texts = "\n".join(said.values())
    in_cases = {
        name for name in builtins.ALLOWED if re.search(rf"(?<![\w.]){re.escape(name)}\s*\(", texts)
    }
    assert builtins.ALLOWED.keys() - in_cases == {call.partition("(")[0] for call in OF_NO_CASE}


@pytest.mark.parametrize(("call", "value"), OF_NO_CASE.items())
def test_functions_of_no_case(call: str, value: Any) -> None:
    policy = Policy(f"package policy\nallow := {{[{call}]}}\n")
    said = policy.evaluate(["allow"], {}, base=NONE_REGISTERED)["allow"]
    assert said == [[value]], json.dumps(said)
