# SPDX-License-Identifier: Apache-2.0
"""A denial names the statement that did not hold, its line, and the values it met."""

from typing import Any

import pytest

from cocos.policy import defaults
from cocos.policy import explain as explaining
from cocos.policy.engine import Policy
from cocos.policy.explain import explain

TEXT = """package policy
import rego.v1
import input.submods as parts
default allow := false
allow_more if input.never
cpu := input.submods.cpu0
allow if {
\tcount(parts) == 1 # only } one
\tcpu["ear.status"] == "affirming"; not too_old # }
\tsome part in cpu.parts
\tpart.m in {"a"} # c}
}
allow if (input.a == 1)
allow if { "a" == input.q }
allow := input.z if { input.y == `b` } else := true if { input.y == "c" # }
\tnot input.w }
allow if { [x, y] = [7, input.n]; x == y }
allow if { count(input.n) == 1 }
allow if ok
ok if { input.v > 3
}
too_old if time.parse_rfc3339_ns(input.built) < 0
"""


def said(text: str, document: Any, *rules: str) -> dict[str, tuple[str, str]]:
    """Return what is found: line and verdict → the values met."""
    found: dict[str, tuple[str, str]] = {}
    for finding in explain(Policy(text), rules or ("allow",), document):
        place, _, statement = finding.problem.partition(": ")
        assert statement, finding
        found.setdefault(place, (finding.actual, finding.expected))
    return found


def test_each_body_names_its_first_statement_that_does_not_hold() -> None:
    found = said(TEXT, {"submods": {}})
    assert found == {
        "line 8, rule allow is false": ("0", "== 1"),
        "line 13, rule allow is undefined": ("", ""),
        "line 14, rule allow is undefined": ("", ""),
        "line 15, rule allow is undefined": ("", ""),
        "line 17, rule allow does not hold": ("", ""),
        "line 18, rule allow is undefined": ("", ""),
        "line 19, rule allow is undefined": ("", ""),
        "line 20, rule ok is undefined": ("", ""),
    }


@pytest.mark.parametrize(
    ("document", "place", "values"),
    [
        ({"submods": {"cpu0": {"ear.status": "x"}}}, "line 9", ('"x"', '== "affirming"')),
        (
            {"submods": {"cpu0": {"ear.status": "affirming"}}, "built": "1960-01-01T00:00:00Z"},
            "line 9, rule allow does not hold",
            ("", ""),
        ),
        (
            {"submods": {"cpu0": {"ear.status": "affirming"}}},
            "line 10, rule allow does not hold",
            ("", ""),
        ),
        (
            {"submods": {"cpu0": {"ear.status": "affirming", "parts": [{"m": "b"}]}}},
            "line 11, rule allow is false",
            ("false", "true"),
        ),
        ({"a": 2}, "line 13, rule allow is false", ("2", "== 1")),
        ({"q": "b"}, "line 14, rule allow is false", ('"a"', '== "b"')),
        ({"y": "b", "z": False}, "line 15, rule allow is false", ("false", "true")),
        ({"y": "c", "w": True}, "line 16, rule allow does not hold", ("", "")),
        ({"n": 1}, "line 18, rule allow fails", None),
        ({"v": 1}, "line 20, rule ok is false", ("1", "> 3")),
    ],
)
def test_values_that_were_met(document: Any, place: str, values: Any) -> None:
    found = said(TEXT, document)
    where = next(each for each in found if each.startswith(place))
    assert values is None or found[where] == values
    assert values is not None or "requires" in found[where][0]


def test_only_rules_of_that_very_name() -> None:
    assert not any("allow_more" in place for place in said(TEXT, {}))


def test_nothing_is_said_of_what_holds() -> None:
    assert said("package policy\nallow if input.a == 1\n", {"a": 1}) == {}
    assert said("package policy\nallow := true\n", {}) == {}


def test_claims_of_evidence_lead_to_their_rules() -> None:
    document = {"tpm": {"pcr04": "x", "ak_trusted": "none"}}
    found = said(defaults.text("default_cpu"), document, "trust_claims", "hardware", "executables")
    for claim in ("hardware", "executables"):
        assert any(f"rule {claim} is" in place for place in found)
    assert not any("configuration" in place for place in found)
    own = 'package policy\ntrust_claims := {"hardware": mine}\ndefault mine := 97\nmine := 2 if {\n\tinput.x == 1\n}\n'
    assert said(own, {"x": 2}, "trust_claims", "hardware") == {
        "line 5, rule mine is false": ("2", "== 1")
    }
    assert said(own, {"x": 2}, "trust_claims", "configuration") == {}


def test_the_default_policy() -> None:
    text = defaults.text(defaults.RESOURCE)
    document = {"submods": {"cpu0": {"ear.status": "none"}}}
    (finding,) = explain(Policy(text), ["allow"], document)
    assert (
        'every submod in input.submods { submod["ear.status"] == "affirming" }' in finding.problem
    )


def test_many_bodies_and_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "package policy\n" + "allow if { input.a; input.b }\n" * 400
    assert len(explain(Policy(text), ["allow"], {})) == explaining.MAX_FINDINGS
    monkeypatch.setattr(explaining, "SECONDS", -1.0)
    assert explain(Policy(text), ["allow"], {}) == ()


def test_a_variable_that_comes_later() -> None:
    text = "package policy\nallow if {\n\tx == 2\n\tx = input.n[_]\n}\n"
    assert said(text, {"n": [1]}) == {"line 4, rule allow does not hold": ("", "")}
    assert said(text, {"n": [2]}) == {}
