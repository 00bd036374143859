# SPDX-License-Identifier: Apache-2.0
"""The Rego engine behind our edge: what compiles, what is refused, how values travel."""

import json
from typing import Any

import pytest

from cocos.errors import ConfigError, FormatError
from cocos.policy import _source, defaults
from cocos.policy.documents import MAX_DEPTH, BaseDocuments
from cocos.policy.engine import MAX_BUNDLES, Policy


def ask(policy: Policy, rule: str, document: Any = None, **data: Any) -> Any:
    """Ask with everything in the base documents."""
    return policy.query([rule], base=BaseDocuments.of(**data)).evaluate(document or {})[rule]


def allow(text: str, document: Any = None, data: Any = None) -> Any:
    return ask(Policy.compile(f"package policy\n{text}"), "allow", document, **(data or {}))


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


@pytest.mark.parametrize(
    "call",
    [
        'time["now_ns"]()',
        "time[`now_ns`]()",
        "time . now_ns()",
        "time\n.now_ns()",
        'opa["runtime"]()',
        'opa["runtime"]().env.HOME',
        'rand . intn("a", 5)',
        'uuid["rfc4122"]("a")',
        'json["patch"]({}, [])',
        'io.jwt.decode_verify(input.a, {"secret": "x"})',
        'io["jwt"].decode_verify(input.a, {"secret": "x"})',
        "crypto.x509.parse_and_verify_certificates(input.a)",
        '[x | x := time["now_ns"]()]',
        'f(1) == 1\nf(x) := time["now_ns"]()',
    ],
)
def test_what_is_more_than_its_arguments_is_refused_however_it_is_written(call: str) -> None:
    with pytest.raises(FormatError, match="not available to policies"):
        Policy.compile(f"package policy\nimport rego.v1\nallow if {call}")
    with pytest.raises(ConfigError, match="not available to policies"):
        Policy(f"package policy\nimport rego.v1\nfindings := {{ y | y := {call} }}").query(
            ["allow"]
        )


def test_claims_and_rules_may_have_such_names() -> None:
    text = (
        'allow := [input.time["now_ns"], input["net"].x, data.http.opa, rand, {"uuid": 1}["uuid"]]\n'
        'rand := x if { some x in ["trace"] }'
    )
    document = {"time": {"now_ns": 1}, "net": {"x": 2}}
    assert allow(f"import rego.v1\n{text}", document, {"http": {"opa": 3}}) == [1, 2, 3, "trace", 1]


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
    got = ask(policy, "allow", {"v": value})
    assert got == value
    assert type(got) is type(value)
    if value != 1e300:
        assert ask(policy, "from_data", {}, v=value) == value


def test_no_injection_through_values() -> None:
    policy = Policy.compile('package policy\ndefault allow := false\nallow if input.a == "b"')
    assert ask(policy, "allow", {"x": '","a":"b'}) is False
    assert ask(policy, "allow", {"a": "b\0c"}) is False


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
        ask(policy, "allow", {"v": value})
    with pytest.raises(FormatError):
        ask(policy, "allow", {}, v=value)


@pytest.mark.parametrize("value", [1e300, 1e-7, [{"a": -1e-300}]])
def test_exponents_in_data_crash_the_engine_and_are_refused(value: Any) -> None:
    with pytest.raises(FormatError, match="too large or too small"):
        BaseDocuments.of({"v": value})


def test_conflict_at_run_time_is_an_error_not_a_verdict() -> None:
    policy = Policy.compile("package policy\nallow := true if input.a\nallow := false if input.b")
    assert ask(policy, "allow", {"a": True}) is True
    with pytest.raises(ConfigError):
        ask(policy, "allow", {"a": True, "b": True})
    assert ask(policy, "allow", {"b": True}) is False


def test_data_is_not_mixed_up_between_queries() -> None:
    policy = Policy.compile("package policy\nallow if data.n == input.n")
    for number in range(2 * MAX_BUNDLES):
        assert ask(policy, "allow", {"n": number}, n=number) is True
        assert ask(policy, "allow", {"n": number + 1}, n=number) is None
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
    assert ask(policy, "allow", {"submods": submods}, **wanted) is expected
    assert ask(policy, "allow", {}, **wanted) is False


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
            ask(policy, "trust_claims", {"claims": many})
    assert ask(policy, "trust_claims", {"claims": [value] * 1000}) == {}


@pytest.mark.parametrize("text", ["ä", "😀", "\u2028", "\x7f", 'a"b', "a\\b", "a\nb", "a/b"])
def test_text_in_a_document_equals_the_same_text_in_a_policy(text: str) -> None:
    literal = json.dumps(text, ensure_ascii=False)
    policy = Policy.compile(
        f"package policy\nallow := [input.v == {literal}, data.v == {literal}, input.v == data.v]"
    )
    for number in (1, 1e300):  # the second is for the engine's slow parser
        assert ask(policy, "allow", {"v": text, "n": number}, v=text) == [True, True, True]


@pytest.mark.parametrize("name", ["a", "rvps:///a b/c:1", 'a"b', "a\\b", "ä", "😀", "a" * 512])
def test_reference_values_of_any_name(name: str) -> None:
    literal = json.dumps(name, ensure_ascii=False)
    policy = Policy.compile(f"package policy\nallow := query_reference_value({literal})")
    many = {f"{number}": number for number in range(600)}
    assert ask(policy, "allow", {}, reference_values={**many, name: ["x"]}) == ["x"]
    assert ask(policy, "allow", {}, reference_values=many) is None
    computed = Policy.compile("package policy\nallow := query_reference_value(input.name)")
    assert ask(computed, "allow", {"name": name}, reference_values={**many, name: 5}) == 5


REQUEST = {"plugin": "resource", "resource-path": ["a", "b"], "query": {"x": "1"}}


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("allow := [data.plugin, data.query.x]", True),
        ('allow := data["resource-path"][1]', True),
        ("allow if {\n\tsome part in data[`resource-path`]\n\tpart == input.a\n}", False),
        ('# data\nnote := "data and input"\nallow := data.query.x', True),
        ("allow := object.get(data, [`plugin`], 0)", False),
        ("allow := data", False),
        ("allow := data[input.a]", False),
        ("allow := [data.plugin, count(input)]", False),
        ("allow := [data.plugin | some name, value in input]", False),
        ("import data.plugin as name\nallow := name", False),
        ('allow := [input["cocos.request"], data.plugin]', False),
        ("allow := data.plugins", False),
        ("allow := [data.query.x, data.policy.other]\nother := 5", False),
        ("mydata := 1\nallow := [mydata, x.data, data.plugin]\nx := {`data`: 2}", True),
    ],
)
def test_what_is_asked_for_moves_to_the_input_only_where_a_policy_cannot_tell(
    text: str, moved: bool
) -> None:
    source = f"package policy\nimport rego.v1\n{text}\n"
    policy = Policy(source)
    assert (_source.request_in_input(source) is not None) is moved
    if moved:
        document = {"a": "b", "n": 1}
        expected = ask(policy, "allow", document, **REQUEST)
        assert expected is not None
        assert policy.query(["allow"], request=REQUEST).evaluate(document) == {"allow": expected}


def test_claims_cannot_say_what_is_asked_for() -> None:
    policy = Policy.compile("package policy\nallow := data.plugin")
    claims = {"cocos.request": {"plugin": "forged"}, "plugin": "forged"}
    assert policy.query(["allow"], request=REQUEST).evaluate(claims) == {"allow": "resource"}


def test_lines_are_those_of_the_text_as_written() -> None:
    policy = Policy("package policy\nx := data.plugin\ny := data.query.x == 1\nallow if {")
    with pytest.raises(ConfigError, match="line 4"):
        policy.query(["allow"], request=REQUEST).evaluate({})
