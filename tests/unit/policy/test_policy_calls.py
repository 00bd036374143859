# SPDX-License-Identifier: Apache-2.0
"""What policies call: reference values where there are none, functions of their own, ``with``."""

import pytest

from cocos.errors import ConfigError, FormatError
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy

UNSHOWN = BaseDocuments.of(None)
"""What a resource policy sees: no reference values."""


def policy(text: str) -> Policy:
    return Policy(f"package policy\nimport rego.v1\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        'allow if query_reference_value("a") == null',
        'allow if { false; query_reference_value("a") }',
        'allow if not f(1)\nf(x) if query_reference_value("a") == x',
    ],
)
def test_asking_for_reference_values_where_none_are_shown_fails_reached_or_not(text: str) -> None:
    asks = policy(text)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"line \d: query_reference_value is not available"):
            asks.evaluate(["allow"], {}, base=UNSHOWN)
    asks.evaluate(["allow"], {}, base=BaseDocuments.of({}))


def test_what_is_no_name_of_a_reference_value_is_an_error() -> None:
    asks = policy("allow if not query_reference_value(input.name)")
    with pytest.raises(ConfigError, match="takes the name of a reference value"):
        asks.evaluate(["allow"], {"name": 1}, base=BaseDocuments.of({"1": True}))


def test_an_own_function_of_that_name_needs_none() -> None:
    own = policy("query_reference_value(x) := x\nallow if query_reference_value(1) == 1")
    assert own.evaluate(["allow"], {}, base=UNSHOWN) == {"allow": True}


@pytest.mark.parametrize(
    "text",
    [
        "allow if input.a with input as data.x",
        "allow if input.a with input as y\ny := data.x",
        "f(x) := 1\ng(x) := 2\nallow if f(1) == 2 with f as g",
        'allow if trim("a") == 1\ntrim(x) := 1',
        "allow if { count([1], x); x == 1 }",
    ],
)
def test_what_may_be_called_and_put_in_place_of_something(text: str) -> None:
    base = BaseDocuments.of(x={"a": True})
    assert policy(text).evaluate(["allow"], {}, base=base) == {"allow": True}


def test_data_of_one_evaluation_is_gone_in_the_next() -> None:
    sees = policy("x := data.a\ny := data.b")
    for _ in range(2):
        one = sees.evaluate(["x", "y"], {}, base=BaseDocuments.of(a=1))
        other = sees.evaluate(["x", "y"], {}, base=BaseDocuments.of(b=2))
        assert (one, other) == ({"x": 1, "y": None}, {"x": None, "y": 2})


@pytest.mark.parametrize(
    "text",
    [
        "allow if { x > 1 }",
        "allow if x",
        "allow if { x := y; y := x }",
    ],
)
def test_a_name_that_nothing_gives_a_value_is_refused_when_a_policy_is_read(text: str) -> None:
    with pytest.raises(FormatError, match="the policy does not compile: line"):
        policy(text)
