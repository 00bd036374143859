# SPDX-License-Identifier: Apache-2.0
"""The Rego engine behind our edge: what compiles, what is refused, how values travel."""

from typing import Any

import pytest

from cocos.errors import ConfigError, FormatError
from cocos.policy import defaults
from cocos.policy.engine import MAX_BUNDLES, MAX_DEPTH, Policy, check_data

ALLOW = "data.policy.allow"


def allow(text: str, document: Any = None, data: Any = None) -> Any:
    return Policy.compile(f"package policy\n{text}").query(ALLOW, document or {}, data or {})


@pytest.mark.parametrize(
    "text",
    [
        "allow = true",
        "allow := true",
        "allow { input.x == 1 }",
        "import rego.v1\nallow if input.x == 1",
        "default allow := false\nallow if input.x == 1",
        "import future.keywords.if\nallow if { input.x == 1 }",
        'allow if data.plugin == "resource"',
        'allow if data["resource-path"][1] == "key"',
        'allow if "1" in query_reference_value("svn")',
        'allow if { query_reference_value("nope") == null }',
    ],
)
def test_policies_written_for_trustee(text: str) -> None:
    data = {
        "plugin": "resource",
        "resource-path": ["default", "key", "1"],
        "reference_values": {"svn": ["1"]},
    }
    assert allow(text, {"x": 1}, data) is True


def test_own_helper_wins() -> None:
    own = "query_reference_value(id) := 7\nallow if query_reference_value(1) == 7"
    assert allow(own, {}, {"reference_values": {}}) is True


def test_comments_and_text_may_say_anything() -> None:
    text = '# print with $x {\nnote := "with {"\nallow if note == `with {`'
    assert allow(text) is True
    assert allow('x := "# no comment"\nallow if startswith(x, "#")') is True


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "nonsense",
        "allow = true",
        "package other\nallow = true",
        "package policy.sub\nallow = true",
        "package policyx\nallow = true",
        '"package policy"',
        "package policy\nallow if {",
        "package policy\nallow := undefined_function(1)",
        "package policy\nallow := allow",
        "package policy\nf(x) := f(x)\nallow := f(1)",
        "package policy\nallow := true\nallow := false",
        "package policy\nallow := true\0",
        "package policy\nallow := opa.runtime()",
        'package policy\nallow := http.send({"url":"http://127.0.0.1"})',
        'package policy\nallow := print("x")',
        "package policy\nallow := time.now_ns()",
        'package policy\nallow if { true with data["x"] as 1 }',
        "package policy\n# " + "x" * 300_000,
        "package policy\nx := \ud800",
    ],
)
def test_refused_when_compiled(text: str) -> None:
    with pytest.raises(FormatError):
        Policy.compile(text)


def test_message_names_the_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FormatError, match="line 3"):
        Policy.compile("package policy\n# ä\nallow if {")
    with pytest.raises(FormatError, match=r"line 3: opa\.runtime"):
        Policy.compile("package policy\n# ä\nallow := opa.runtime()")
    assert capfd.readouterr() == ("", "")


def test_undefined_is_none() -> None:
    assert allow("allow if input.x == 1") is None
    assert allow("other := 1") is None


@pytest.mark.parametrize(
    "value",
    [
        'quote " and \\ and \n',
        "a\0b",
        "\ud800",
        "😀ä",
        "\u2028",
        2**64,
        10**40,
        -1,
        1.5,
        1e300,
        True,
        None,
        [],
        {},
        [[1]],
        {'a"b\\': 1, "": 2},
    ],
)
def test_values_arrive_unchanged(value: Any) -> None:
    policy = Policy.compile("package policy\nallow := input.v\nfrom_data := data.v")
    got = policy.query(ALLOW, {"v": value}, {})
    assert got == value
    assert type(got) is type(value)
    if value != 1e300:
        assert policy.query("data.policy.from_data", {}, {"v": value}) == value


def test_no_injection_through_values() -> None:
    policy = Policy.compile('package policy\ndefault allow := false\nallow if input.a == "b"')
    assert policy.query(ALLOW, {"x": '","a":"b'}, {}) is False
    assert policy.query(ALLOW, {"a": "b\0c"}, {}) is False


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [nested(MAX_DEPTH), nested(900), nested(5000), float("nan"), float("inf"), b"", {1: 2}]
)
def test_documents_that_would_hurt_the_engine(value: Any) -> None:
    policy = Policy.compile("package policy\nallow := true")
    with pytest.raises(FormatError):
        policy.query(ALLOW, {"v": value}, {})
    with pytest.raises(FormatError):
        policy.query(ALLOW, {}, {"v": value})


@pytest.mark.parametrize("value", [1e300, 1e-7, [{"a": -1e-300}]])
def test_exponents_in_data_crash_the_engine_and_are_refused(value: Any) -> None:
    with pytest.raises(FormatError, match="too large or too small"):
        check_data({"v": value})


def test_conflict_at_run_time_is_an_error_not_a_verdict() -> None:
    policy = Policy.compile("package policy\nallow := true if input.a\nallow := false if input.b")
    assert policy.query(ALLOW, {"a": True}, {}) is True
    with pytest.raises(ConfigError):
        policy.query(ALLOW, {"a": True, "b": True}, {})
    assert policy.query(ALLOW, {"b": True}, {}) is False


def test_data_is_not_mixed_up_between_queries() -> None:
    policy = Policy.compile("package policy\nallow if data.n == input.n")
    for number in range(2 * MAX_BUNDLES):
        assert policy.query(ALLOW, {"n": number}, {"n": number}) is True
        assert policy.query(ALLOW, {"n": number + 1}, {"n": number}) is None
    assert len(policy._bundles) == MAX_BUNDLES


AFFIRMING = {"ear.status": "affirming"}


@pytest.mark.parametrize(
    ("submods", "expected"),
    [
        ({"cpu0": AFFIRMING}, True),
        ({"cpu0": AFFIRMING, "gpu0": AFFIRMING}, True),
        ({}, False),
        (None, False),
        ([], False),
        ([AFFIRMING], False),
        ("affirming", False),
        ({"cpu0": {}}, False),
        ({"cpu0": None}, False),
        ({"cpu0": "affirming"}, False),
        ({"cpu0": {"ear.status": "warning"}}, False),
        ({"cpu0": {"ear.status": "none"}}, False),
        ({"cpu0": {"ear.status": ["affirming"]}}, False),
        ({"cpu0": AFFIRMING, "gpu0": {"ear.status": "contraindicated"}}, False),
        ({"cpu0": AFFIRMING, "gpu0": {}}, False),
    ],
)
def test_default_resource_policy(submods: Any, expected: bool) -> None:
    policy = Policy.compile(defaults.text(defaults.RESOURCE))
    wanted = {"plugin": "resource", "resource-path": ["a", "b", "c"], "query": {}}
    assert policy.query(ALLOW, {"submods": submods}, wanted) is expected
    assert policy.query(ALLOW, {}, wanted) is False


def test_empty_policy_denies() -> None:
    assert allow("") is None


@pytest.mark.parametrize("name", [defaults.RESOURCE, *defaults.ATTESTATION])
def test_defaults_compile(name: str) -> None:
    Policy.compile(defaults.text(name))


@pytest.mark.parametrize("value", [0, "", [], {}])
def test_an_input_of_very_many_values_is_refused_not_pondered(value: object) -> None:
    """A megabyte of them kept the engine, and the key broker with it, busy for minutes."""
    policy = Policy.compile("package policy\n\ntrust_claims := {}\n")
    for many in ([value] * 300_000, {f"{n}": [value] for n in range(100_000)}):
        with pytest.raises(FormatError, match="values"):
            policy.query("data.policy.trust_claims", {"claims": many}, {})
    assert policy.query("data.policy.trust_claims", {"claims": [value] * 1000}, {}) == {}
