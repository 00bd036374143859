# SPDX-License-Identifier: Apache-2.0
"""Any text as a policy, any claims before it: refused, failed or evaluated, never worse."""

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cocos.errors import CallerError, ConfigError, FormatError
from cocos.policy import builtins, defaults, owners
from cocos.policy.documents import Kind
from cocos.policy.engine import Policy
from cocos.policy.explain import explain
from cocos.policy.owners import Terms
from cocos.policy.review import review

SEEDS = [
    defaults.text(defaults.RESOURCE),
    *map(defaults.text, defaults.ATTESTATION),
    owners.write(Terms(({"pcr11": ["a"]},), ({"algorithm_digest": ["b"]},)), said="x"),
    "package policy\nallow if { not f(input.a) } else := 1 if { input.b with input as {} }\n",
    "package policy\nf(x) if { every k, v in x { v == k } }\nallow if f({y | y := input[_]})\n",
]
PIECES = [
    *("if", "{", "}", "[", "]", "(", ")", "not", "every", "some", "in", ":=", "==", "|", ","),
    *('"', "`", "#", "\n", "with", "as", "else", "default", "contains", "input", "data", "_"),
    *("-1", "1e9", ".", '$"', "\\", "\0", "é", "import rego.v1\n", '{"a":', "set()", "allow"),
    *('time["now_ns"]()', "data.policy", "trust_claims", "9" * 400, "cocos_probe", "]\n"),
]


@st.composite
def texts(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text)))
        gone = draw(st.integers(0, 20))
        text = text[:place] + draw(st.sampled_from(PIECES) | st.just("")) + text[place + gone :]
    return text


scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.text("ab.", max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)
documents = st.dictionaries(st.sampled_from(["a", "b", "submods", "tpm"]), values, max_size=3)


@given(texts(), documents)
@settings(deadline=None, max_examples=150)
def test_any_text_is_refused_fails_or_is_evaluated(text: str, document: Any) -> None:
    try:
        policy = Policy(text)
    except FormatError:
        return
    for kind in Kind:
        with contextlib.suppress(FormatError):
            review(text, kind)
        with contextlib.suppress(CallerError):
            policy.evaluate([kind.verdict, "findings"], document)
        for finding in explain(policy, [kind.verdict, "hardware"], document):
            assert "line" in finding.problem


ARGUMENTS = [
    *("input.a", '"a"', "1", "[input.a]", "{}", "null", "input.missing"),
    *('""', '"é"', "[]", "set()", "-1", "0", "1.5", '[""]', '"%d"', '"("', "1e300", "false"),
]


@given(
    st.sampled_from(sorted(builtins.ALLOWED)),
    st.lists(st.sampled_from(ARGUMENTS), min_size=5, max_size=5),
    documents,
)
@settings(deadline=None, max_examples=300)
def test_a_function_that_fails_never_means_no(
    name: str, arguments: list[str], document: Any
) -> None:
    """Where a call fails, neither it nor its negation allows anything."""
    call = f"{name}({', '.join(arguments[: len(builtins.ALLOWED[name])])})"
    policies = [Policy(f"package policy\nallow if {{ {each}{call} }}\n") for each in ("", "not ")]
    said, failed = [], 0
    for policy in policies:
        try:
            said.append(policy.evaluate(["allow"], document)["allow"])
        except ConfigError:
            failed += 1
    assert failed in {0, len(policies)}
    assert said.count(True) <= 1


@given(st.sampled_from(SEEDS[:1] + SEEDS[3:4]), documents)
@settings(deadline=None, max_examples=60)
def test_a_denial_is_explained_and_what_is_allowed_is_not(text: str, document: Any) -> None:
    policy = Policy(text)
    try:
        allowed = policy.evaluate(["allow"], document)["allow"]
    except ConfigError:
        allowed = False
    assert bool(explain(policy, ["allow"], document)) is not allowed
