# SPDX-License-Identifier: Apache-2.0
"""The Rego engine behind our edge: what compiles, what is refused, how values travel."""

import json
import re
import weakref
from typing import Any

import pytest

from cocos.errors import ConfigError, FormatError
from cocos.policy import builtins, defaults
from cocos.policy._source import MAX_BRACKETS
from cocos.policy.documents import MAX_DEPTH, BaseDocuments, Kind, check_data
from cocos.policy.engine import Policy
from cocos.policy.explain import explain
from cocos.policy.review import review


def ask(policy: Policy, rule: str, document: Any = None, **data: Any) -> Any:
    """Ask with everything in the base documents."""
    return policy.evaluate([rule], document or {}, base=BaseDocuments.of(**data))[rule]


def allow(text: str, document: Any = None, data: Any = None) -> Any:
    return ask(Policy(f"package policy\n{text}"), "allow", document, **(data or {}))


@pytest.mark.parametrize(
    "text",
    [
        "allow = true",
        "allow := true",
        'import rego.v1\nallow if input.x with input as {"x": true}',
        'allow if lower("A") == "b" with lower as own\nown(x) := "b"',
        "import input.x as y\nallow if y == 1",
        "import data.policy as p\nf(x) := x\nallow := p.f(true)",
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
    text = '# print with $x {\nnote := "time.now_ns() {"\nallow if note == `time.now_ns() {` # }'
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
        "package policy\nallow { input.x == 1 }",
        "package policy\nallow if tru",
        "package policy\nallow := time[`now_ns`]()",
        'package policy\nallow := $"{input.x}"',
        'package policy\nallow := startswith("a")',
        "package policy\nallow := " + "[" * MAX_BRACKETS + "[1]" + "]" * MAX_BRACKETS,
        "package policy\nallow := 1\n" + "x := 1\n" * 30_000,
        "package policy\n# " + "x" * 300_000,
        "package policy\nx := \ud800",
    ],
)
def test_refused_when_compiled(text: str) -> None:
    with pytest.raises(FormatError):
        review(text, Kind.RESOURCE)


CALLS = [
    'time["now_ns"]()',
    'opa["runtime"]().env.HOME',
    'http.send({"url": "http://127.0.0.1"})',
    'rand.intn("a", 5)',
    'uuid["rfc4122"]("a")',
    'json["patch"]({}, [])',
    'io.jwt.decode_verify(input.a, {"secret": "x"})',
    'io["jwt"].decode_verify(input.a, {"secret": "x"})',
    "crypto.x509.parse_and_verify_certificates(input.a)",
    'crypto.sha256("a")',
    "trace(input.a)",
    "print(input.a)",
    "yaml.unmarshal(input.a)",
    "nosuch(input.a)",
    "data.other.f(input.a)",
]
PLACES = [
    "allow if CALL",
    "allow if { not CALL }",
    "allow := CALL",
    "allow := [x | x := CALL]",
    "allow if { every x in [1] { x < CALL } }",
    "allow if { some x in [CALL]; x == 1 }",
    "allow if { false; CALL }",
    "allow := 1 if { false } else := CALL",
    "allow := object.get({}, CALL, 1)",
    "allow := {CALL: 1}",
    "allow if f(1)\nf(x) if CALL",
    "allow if input.x with input as CALL",
    "allow := input.a[CALL]",
    "default allow := false\nfindings contains x if x := CALL",
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("place", PLACES)
def test_what_policies_may_not_call_is_refused_by_name_wherever_it_is(
    call: str, place: str
) -> None:
    name = call.partition("(")[0].replace('["', ".").replace('"]', "")
    with pytest.raises(FormatError, match=rf"line \d: {re.escape(name)} is not available"):
        Policy("package policy\nimport rego.v1\n" + place.replace("CALL", call))


@pytest.mark.parametrize("name", sorted(builtins.REFUSED))
def test_what_is_refused_raises_when_it_is_called_all_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocos.policy.engine._check_calls", lambda _syntax: None)
    arguments = ", ".join(['"a"'] * builtins.REFUSED[name][0])
    for call in (f"{name}({arguments})", f"not {name}({arguments})"):
        policy = Policy(f"package policy\nallow if {{ {call} }}\n")
        with pytest.raises(ConfigError, match="not available to policies"):
            policy.evaluate(["allow"], {})


@pytest.mark.parametrize("call", ['print("a")', 'test.sleep("1ns")', "time.now_ns()", 'trace("a")'])
def test_it_raises_as_everybody_calls_it(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cocos.policy.engine._check_calls", lambda _syntax: None)
    policy = Policy(f"package policy\nallow if {{ {call} }}\n")
    with pytest.raises(ConfigError, match="not available to policies"):
        policy.evaluate(["allow"], {})


@pytest.mark.parametrize(
    "text",
    [
        "allow := f(1) with f as time.now_ns\nf(x) := 1",
        "allow if f(1) == 2 with f as rand.intn\nf(x) := 1",
        'allow if lower("a") with lower as opa["runtime"]',
    ],
)
def test_nothing_refused_takes_the_place_of_something_allowed(text: str) -> None:
    with pytest.raises(FormatError):
        Policy(f"package policy\n{text}\n")


@pytest.mark.parametrize(
    "text",
    ["f(x) := f(x)", "f(x) := g(x)\ng(x) := [y | y := h(x)]\nh(x) if { not f(x) }"],
)
def test_functions_that_come_back_to_themselves_are_refused(text: str) -> None:
    """The engine overflows its stack on them."""
    with pytest.raises(FormatError, match="line 2: f calls itself"):
        Policy(f"package policy\n{text}\nallow := f(1)\n")


@pytest.mark.parametrize(
    "call", ["count(input.n)", 'startswith(input.n, "a")', 'time.parse_rfc3339_ns("yesterday")']
)
def test_an_error_never_means_no(call: str) -> None:
    """It ends the evaluation, whatever surrounds it."""
    for body in (call, f"not {call}", f"count([x | x := {call}]) == 0", "not f(1)"):
        policy = Policy(f"package policy\nallow if {{ {body} }}\nf(_) if {call}\n")
        with pytest.raises(ConfigError):
            policy.evaluate(["allow"], {"n": 1})


@pytest.mark.parametrize(
    "call",
    [
        "object.subset(input.many, input.none)",
        'strings.count("a", input.empty)',
        'time.parse_ns(input.layout, "2021")',
    ],
)
def test_where_the_engine_panics_a_policy_fails_with_a_sentence(call: str) -> None:
    """Trustee's panics, too, and takes the request with it."""
    document = {"many": [1], "none": [], "empty": "", "layout": "é"}
    for body in (call, f"not {call}", f"count([x | x := {call}]) == 0"):
        policy = Policy(f"package policy\nother := 1\nallow if {{ {body} }}\n")
        for _ in range(2):
            with pytest.raises(ConfigError, match="the engine cannot do what a function is asked"):
                policy.evaluate(["allow"], document)
        (finding,) = explain(policy, ["allow"], document)
        assert "line 3, rule allow fails" in finding.problem
        assert policy.evaluate(["other"], document) == {"other": 1}


def test_times_as_everybody_writes_them() -> None:
    text = 'too_old if time.parse_rfc3339_ns("2021-05-04T10:11:12Z") < input.since\n'
    policy = Policy(f"package policy\n{text}allow if not too_old\n")
    assert policy.evaluate(["allow"], {"since": 1620123072000000001}) == {"allow": None}
    assert policy.evaluate(["allow"], {"since": 1620123072000000000}) == {"allow": True}


def test_claims_and_rules_may_have_such_names() -> None:
    text = (
        'allow := [input.time["now_ns"], input["net"].x, data.http.opa, rand, {"uuid": 1}["uuid"]]\n'
        'rand := x if { some x in ["trace"] }'
    )
    document = {"time": {"now_ns": 1}, "net": {"x": 2}}
    assert allow(f"import rego.v1\n{text}", document, {"http": {"opa": 3}}) == [1, 2, 3, "trace", 1]


def test_message_names_the_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FormatError, match="line 3"):
        Policy("package policy\n# ä\nallow if {")
    with pytest.raises(FormatError, match=r"line 3: opa\.runtime"):
        Policy("package policy\n# ä\nallow := opa.runtime()")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text",
    [
        "package policy # mine\nimport rego.v1 # ours\nallow := true # yes",
        "\ufeffpackage policy\nallow := true\n",
        "package policy\r\nimport rego.v1\r\nallow if {\r\n\ttrue\r\n}\r\n",
        "# \ufeff\n\npackage policy\nallow if { true }\n# no line end",
    ],
)
def test_texts_as_editors_leave_them(text: str) -> None:
    policy = Policy(text)
    assert policy.evaluate(["allow"], {}) == {"allow": True}
    assert explain(policy, ["allow"], {}) == ()


def test_long_lines() -> None:
    text = "x" * 200_000
    assert allow(f'allow if input.x == "{text}"', {"x": text}) is True


def test_undefined_is_none() -> None:
    assert allow("allow if input.x == 1") is None
    assert allow("other := 1") is None


@pytest.mark.parametrize(
    "value",
    [
        'quote " and \\ and \n',
        "a\0b",
        "😀ä",
        "\u2028",
        2**64 - 1,
        -(2**63),
        9007199254740993,
        -1,
        1.5,
        0.1,
        5e-324,
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
    policy = Policy("package policy\nallow := input.v\nfrom_data := data.v")
    got = ask(policy, "allow", {"v": value})
    assert got == value
    assert type(got) is type(value)
    assert ask(policy, "from_data", {}, v=value) == value
    named = Policy('package policy\nallow := query_reference_value("v")')
    assert ask(named, "allow", reference_values={"v": value}) == value


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**400, [2**64 + 1], "\ud800", "a\udfffb"])
def test_what_would_change_on_its_way_is_refused(value: Any) -> None:
    """2^64 + 1 would equal 2^64."""
    policy = Policy("package policy\nallow := true")
    for document, data in (({"v": value}, {}), ({}, {"v": value}), ({str(value): 1}, {})):
        if isinstance(value, str) or data or "v" in document:
            with pytest.raises(FormatError, match="plain JSON"):
                ask(policy, "allow", document, **data)
    with pytest.raises(FormatError, match="plain JSON"):
        policy.evaluate(["allow"], {}, request={"plugin": value})


def test_data_cannot_say_what_rules_say() -> None:
    """The engine believes data before the policy's own rules."""
    with pytest.raises(FormatError, match="policy"):
        BaseDocuments.of({}, policy={"allow": True})
    with pytest.raises(FormatError, match="policy"):
        check_data({"policy": {"allow": True}})
    with pytest.raises(FormatError, match="policy"):
        Policy("package policy\nallow := false").evaluate(
            ["allow"], {}, request={"policy": {"allow": True}}
        )


def test_no_injection_through_values() -> None:
    policy = Policy('package policy\ndefault allow := false\nallow if input.a == "b"')
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
    policy = Policy("package policy\nallow := true")
    with pytest.raises(FormatError):
        ask(policy, "allow", {"v": value})
    with pytest.raises(FormatError):
        ask(policy, "allow", {}, v=value)


def test_conflict_at_run_time_is_an_error_not_a_verdict() -> None:
    policy = Policy("package policy\nallow := true if input.a\nallow := false if input.b")
    assert ask(policy, "allow", {"a": True}) is True
    with pytest.raises(ConfigError):
        ask(policy, "allow", {"a": True, "b": True})
    assert ask(policy, "allow", {"b": True}) is False


def test_nothing_is_left_of_another_evaluation() -> None:
    text = (
        "package policy\nx := data.n if not input.fails\nallow if x == input.n\n"
        'y := query_reference_value("v")\nfails := count(1) if input.fails\n'
    )
    policy = Policy(text)
    for number in range(9):
        base = BaseDocuments.of({"v": number}, n=number)
        rules = ["allow", "y", "fails"]
        same = policy.evaluate(rules, {"n": number}, base=base)
        assert same == {"allow": True, "y": number, "fails": None}
        with pytest.raises(ConfigError):
            policy.evaluate(rules, {"n": number, "fails": True}, base=base)
        empty = BaseDocuments.of()
        other = policy.evaluate(rules, {"n": number}, base=empty, request={"n": number + 1})
        assert other == {"allow": None, "y": None, "fails": None}


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
    policy = Policy(defaults.text(defaults.RESOURCE))
    wanted = {"plugin": "resource", "resource-path": ["a", "b", "c"], "query": {}}
    assert ask(policy, "allow", {"submods": submods}, **wanted) is expected
    assert ask(policy, "allow", {}, **wanted) is False


def test_empty_policy_denies() -> None:
    assert allow("") is None


@pytest.mark.parametrize("name", [defaults.RESOURCE, *defaults.ATTESTATION])
def test_defaults_compile(name: str) -> None:
    Policy(defaults.text(name))


@pytest.mark.parametrize("value", [0, "", [], {}])
def test_an_input_of_very_many_values_is_refused_not_pondered(value: object) -> None:
    """A megabyte of them kept the engine, and the key broker with it, busy for minutes."""
    policy = Policy("package policy\n\ntrust_claims := {}\n")
    for many in ([value] * 300_000, {f"{n}": [value] for n in range(100_000)}):
        with pytest.raises(FormatError, match="values"):
            ask(policy, "trust_claims", {"claims": many})
    assert ask(policy, "trust_claims", {"claims": [value] * 1000}) == {}


@pytest.mark.parametrize("text", ["ä", "😀", "\u2028", "\x7f", 'a"b', "a\\b", "a\nb", "a/b"])
def test_text_in_a_document_equals_the_same_text_in_a_policy(text: str) -> None:
    literal = json.dumps(text, ensure_ascii=False)
    policy = Policy(
        f"package policy\nallow := [input.v == {literal}, data.v == {literal}, input.v == data.v]"
    )
    assert ask(policy, "allow", {"v": text}, v=text) == [True, True, True]


@pytest.mark.parametrize("name", ["a", "rvps:///a b/c:1", 'a"b', "a\\b", "ä", "😀", "a" * 512])
def test_reference_values_of_any_name(name: str) -> None:
    literal = json.dumps(name, ensure_ascii=False)
    policy = Policy(f"package policy\nallow := query_reference_value({literal})")
    many = {f"{number}": number for number in range(600)}
    assert ask(policy, "allow", {}, reference_values={**many, name: ["x"]}) == ["x"]
    assert ask(policy, "allow", {}, reference_values=many) is None
    computed = Policy("package policy\nallow := query_reference_value(input.name)")
    assert ask(computed, "allow", {"name": name}, reference_values={**many, name: 5}) == 5


REQUEST = {"plugin": "resource", "resource-path": ["a", "b"], "query": {"x": "1"}}


@pytest.mark.parametrize(
    "text",
    [
        "allow := [data.plugin, data.query.x]",
        'allow := data["resource-path"][1]',
        "allow := object.get(data, [`plugin`], 0)",
        "allow := data[input.name]",
        "import data.plugin as name\nallow := name",
    ],
)
def test_what_is_asked_for(text: str) -> None:
    policy = Policy(f"package policy\nimport rego.v1\n{text}\n")
    document = {"name": "plugin"}
    expected = ask(policy, "allow", document, **REQUEST)
    assert expected is not None
    assert policy.evaluate(["allow"], document, request=REQUEST) == {"allow": expected}


def test_claims_cannot_say_what_is_asked_for() -> None:
    policy = Policy("package policy\nallow := data.plugin")
    claims = {"data": {"plugin": "forged"}, "plugin": "forged"}
    assert policy.evaluate(["allow"], claims, request=REQUEST) == {"allow": "resource"}


def test_a_policy_that_nobody_holds_is_gone() -> None:
    """Workers forget policies; the collector cannot look into an engine."""
    policy = Policy('package policy\nimport rego.v1\nallow if query_reference_value("x") == 1\n')
    kept = weakref.ref(policy)
    del policy
    assert kept() is None
