# SPDX-License-Identifier: Apache-2.0
"""What the author of a policy cannot have meant, said when it is set."""

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest

from cocos.attestation_service.annotate import compose
from cocos.crypto import signing
from cocos.errors import FormatError
from cocos.policy import defaults, owners
from cocos.policy.appraisal import CLAIMS, appraise
from cocos.policy.documents import Kind
from cocos.policy.owners import Terms
from cocos.policy.review import review
from cocos.policy.vocabulary import CLAIMED, SHOWN, Shape
from cocos.tokens.ear import Issuer, Submodule, issue
from cocos.tokens.signer import Signer
from cocos.wire.kbs.protocol import Tee
from cocos.wire.manifest.event import ComputationEvent

DOCS = Path(__file__).resolve().parents[3] / "docs"


def warnings(text: str, kind: Kind = Kind.RESOURCE) -> str:
    return "\n".join(review(f"package policy\n{text}\n", kind))


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (Kind.RESOURCE, "alow if true", "has alow"),
        (Kind.RESOURCE, "trust_claims := {}", "allow decides"),
        (Kind.RESOURCE, 'allow contains "x"', "allow if"),
        (Kind.RESOURCE, "allow(x) := true", "allow if"),
        (Kind.RESOURCE, "allow.x := true", "allow if"),
        (Kind.RESOURCE, "allow if tru", "did you mean true"),
        (Kind.RESOURCE, "allow if cpu\ncpuu := input.submods.cpu0", "did you mean cpuu"),
        (Kind.RESOURCE, "allow := true\nallow := false", None),
        (Kind.RESOURCE, "allow := allow", None),
        (Kind.RESOURCE, "allow if x\nx if y\ny if x", None),
        (Kind.RESOURCE, "default allow := false\ndefault allow := true", None),
        (Kind.RESOURCE, 'allow if startwith("a", "b")', "did you mean startswith"),
        (Kind.ATTESTATION, "trust_claim := {}", "has trust_claim"),
        (Kind.ATTESTATION, "allow := true", "trust_claims decides"),
        (Kind.ATTESTATION, "executables := 3\nhardware := 2", "trust_claims decides"),
        (Kind.ATTESTATION, "trust_claims contains 2", "trust_claims :="),
        (Kind.ATTESTATION, "trust_claims := time.now_ns()", "more than its arguments"),
    ],
)
def test_what_can_never_allow_is_refused(kind: Kind, text: str, said: str | None) -> None:
    with pytest.raises(FormatError) as refused:
        review(f"package policy\n{text}\n", kind)
    assert said is None or said in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("allow.x := true", "an object"),
        ("allow[x] := 1 if { x := 1 }", "an object"),
        ("allow(x) := true", "a function"),
        ("default allow(x) := true", "a function"),
        ('allow contains "x"', "a set"),
    ],
)
def test_what_decides_is_a_value(text: str, what: str) -> None:
    with pytest.raises(FormatError, match=f"line 2: allow is {what}, which decides nothing"):
        warnings(text)


EVIDENCE = 'input.submods.cpu0["ear.veraison.annotated-evidence"]'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default allow := false\nalow if input.submods", "line 3: nobody asks for alow"),
        ('allow if input.tee == "tpm"', "line 2: there is no input.tee"),
        ("allow if input.submod.cpu0", "did you mean submods?"),
        ('allow if input["submod"]', "did you mean submods?"),
        ("allow if not input.submod", "did you mean submods?"),
        ("allow if { x := input.submod; x }", "did you mean submods?"),
        ("allow if count({x | x := input.submod[_]}) == 0", "did you mean submods?"),
        ("import input.submod as s\nallow if s.cpu0", "line 3: there is no input.submod"),
        ('allow if data.pluggin == "resource"', "did you mean plugin?"),
        ("allow if data.policy.alow", "did you mean allow?"),
        ("allow if data.reference_values.a", "query_reference_value"),
        ('allow if startswith(data["resource-path"], "a")', "argument 1 is an array, not text"),
        ('p := data["resource-path"]\nallow if lower(p) == "a"', "argument 1 is an array"),
        ('allow if contains("a", 1)', "argument 2 is a number, not text"),
        ("allow if sum(input.submods) == 1", "argument 1 is an object, not an array or a set"),
        ('allow if input.submods.cpu0["ear.statu"] == "affirming"', "ear.status"),
        ('allow if input.submods.cpu0["ear.status"] == "affirm"', "did you mean affirming?"),
        ('allow if { some s in input.submods; s["ear.status"] == "ok" }', 'never "ok"'),
        ('allow if { every s in input.submods { s["ear.status"] == "ok" } }', 'never "ok"'),
        (f'allow if {EVIDENCE}.tmp.pcr11 == "a"', "did you mean tpm?"),
        (f'allow if {EVIDENCE}.tpm.pcr4 == "a"', "did you mean pcr04?"),
        (f'allow if {EVIDENCE}.tpm["PCR_11"] == "a"', "did you mean pcr11?"),
        (f'allow if {EVIDENCE}.tpm.pcr24 == "a"', "there is no"),
        (f"allow if {EVIDENCE}.tpm.manifest", "there is no"),
        (f"t := {EVIDENCE}.tpm\nallow if t.computations[0].algorithm", "algorithm_digest?"),
        (
            f"allow if {{ some c in {EVIDENCE}.tpm.computations; c.manifest_digets }}",
            "did you mean manifest_digest?",
        ),
        (f"allow if {EVIDENCE}.tpm.computation.datasets", "did you mean dataset_digests?"),
        (f"allow if {EVIDENCE}.sample.svm", "did you mean svn?"),
        (f'e := {EVIDENCE}\nallow if e.tmp.pcr11 == "a"', "line 3"),
        (
            'allow if input.submods.cpu0["ear.trustworthiness-vector"].hardwear == 2',
            "did you mean hardware?",
        ),
        ('allow := "yes"', "only true allows"),
        ('allow if input.submods.cpu["ear.status"] == "affirming"', "name that is there: cpu0"),
        # Where it is missing, OPA denies and the engine does not.
        ('allow if not input.iss in {"a"}', "line 2: not holds here where input.iss is missing"),
        ("allow if not startswith(input.iss, `a`)", "where input.iss is missing"),
        ("allow if not lower(input.iss) == `a`", "where input.iss is missing"),
        ("allow if not input.iat < 5", "where input.iat is missing"),
        ("allow if not input.iss != `a`", "where input.iss is missing"),
        ("allow if not {input.iss} == {`a`}", "where input.iss is missing"),
        ("allow if not bad[input.iss]\nbad contains `a`", "where input.iss is missing"),
        ("allow if not f(input.iss)\nf(x) if x == `a`", "where input.iss is missing"),
        (
            "allow if { some s in input.submods; not startswith(s[`ear.status`], `a`) }",
            "where input.submods.?.ear.status is missing",
        ),
        ("allow if { y := [1]; y[0]; not startswith(input.iss, `a`) }", "input.iss is missing"),
        ("allow if { x := input; x.tee }", "there is no input.tee"),
        ("x := input\nallow if x.tee", "line 3: there is no input.tee"),
        ("allow if input.reference", "query_reference_value(name) returns"),
        ("allow if count(object.get(input, `x`, 1)) == 1", "fails where input and data are empty"),
    ],
)
def test_what_nobody_can_have_meant_is_a_warning(text: str, said: str) -> None:
    assert said in warnings(text)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (Kind.RESOURCE, 'allow := {"a": 1}', ["only true allows, and this is something else"]),
        (
            Kind.ATTESTATION,
            'trust_claims := {"zzzzz": 2}',
            [f"no trust claim is called zzzzz: they are {', '.join(CLAIMS)}"],
        ),
        (Kind.RESOURCE, "allow if data.policy.zzzzz", ["the policy has no rule zzzzz"]),
        (
            Kind.RESOURCE,
            "allow if input.submod.cpu0.x",
            ["there is no input.submod: did you mean submods?"],
        ),
        (
            Kind.RESOURCE,
            "allow if data.zzz",
            ["there is no data.zzz, but plugin, resource-path, query"],
        ),
        (
            Kind.RESOURCE,
            f"allow if {EVIDENCE}.tpm.zzz",
            ["there is no input.submods.cpu0.ear.veraison.annotated-evidence.tpm.zzz"],
        ),
        (
            Kind.RESOURCE,
            'allow if input.submods.cpu0["ear.status"] == "zzz"',
            ['it is never "zzz": it is one of affirming, contraindicated, none, warning'],
        ),
        (
            Kind.RESOURCE,
            "allow if { not f(input.submods[input.iss]) }\nf(x) if x",
            [
                f"not holds here where {name} is missing, too: bind it above"
                for name in ("input.iss", "input.submods.?")
            ],
        ),
    ],
)
def test_a_warning_says_no_more_than_it_knows(kind: Kind, text: str, said: list[str]) -> None:
    assert warnings(text, kind) == "\n".join(f"line 2: {each}" for each in said)


@pytest.mark.parametrize("text", ['trust_claims := "x"', 'x := "hardware"\ntrust_claims := {x: 2}'])
def test_no_claim_is_guessed_at(text: str) -> None:
    assert warnings(text, Kind.ATTESTATION) == ""


def test_claims_of_trust_have_names() -> None:
    text = 'trust_claims := {"hardware": 2, "executable": 3}'
    assert "did you mean executables?" in warnings(text, Kind.ATTESTATION)


@pytest.mark.parametrize("member", ["tmp", "sumbods", "submods"])
def test_evidence_has_other_names_than_tokens(member: str) -> None:
    text = f"trust_claims := {{}} if input.{member}"
    assert f"no input.{member}" in warnings(text, Kind.ATTESTATION)


@pytest.mark.parametrize(
    "text",
    [
        "default allow := false",
        "default allow := false\nother if input.submods",
        "default allow := false\nalow(x) if x",
        # Rules that something reads.
        "default allow := false\nalow if input.submods\nallow if alow",
        "default allow := false\nalow if input.submods\nallow if data.policy.alow",
        "default allow := false\nalow if true\nallow if other\nother if { x := alow; x }",
        "allow if data.policy.allowed\nallowed if true",
        # A name that is another one where it stands.
        "x := input\nallow if f({`tee`: 1})\nf(x) if x.tee",
        "x := input\nallow if { x := {`tee`: 1}; x.tee }",
        "x := input\nallow if { some x; x = {`tee`: 1}; x.tee }",
        "allow if { x := input; x; [1 | x := {`tee`: 1}; x.tee] }",
        "allow if { x := {`tee`: 1}; x.tee; [1 | x := input; x] }",
        "allow if { x = input; x.tee }",
        "allow if { [x] := [input]; x.tee }",
        "allow if { some [a, b] in [[1, 2]]; a < b }",
        "x[1] := input\nallow if x.tee",
        "x := input if input.iss\nx := {`tee`: 1} if not input.iss\nallow if x.tee",
        "x := {`tee`: 1} if not input.iss\nx := input if input.iss\nallow if x.tee",
        "allow if input[input.iss].tee",
        "allow if lower(input.submods.cpu0.mine.x) == `a`",
        "allow if { count([1], x); x == 1 }",
        'allow if input.submods.cpu0["ear.status"] > "affirm"',
        'allow if input.submods.cpu0["ear.status"] == input.iss',
        "allow if not lower(data.plugin) == `a`",
        "allow if { x := [`a`]; not lower(x[0]) == `b` }",
        "allow if input.submods.cpu0.mine == 1",
        "allow if { some name; input.submods[name].mine }",
        "allow if { x := input.submods.cpu0; not f(x) }\nf(input_) if input_.tee",
        'allow if data["resource-path"] == ["a", "b", "c"]',
        'allow if startswith(data["resource-path"][0], "a")',
        "allow if { x := {`tee`: 1}; x.tee == 1 }",
        "allow if { some x in [{`tee`: true}]; x.tee }",
        f'allow if {EVIDENCE}.init_data_claims["aa.toml"].x',
        f"allow if {EVIDENCE}.hygondcu.anything.new",
        f"allow if {EVIDENCE}.tpm.pcr04",
        f"allow if {EVIDENCE}.tpm.uefi[0].details.anything",
        f"allow if {EVIDENCE}.tpm.computations[0].dataset_digests[0]",
        f"allow if {{ some pcr in [`pcr04`]; {EVIDENCE}.tpm[pcr] }}",
        "lower(x) := x\nallow if lower(1) == 1",
        "allow if { x := input.iss; not startswith(x, `a`) }",
        "allow if { input.iss; not startswith(input.iss, `a`) }",
        "allow if { not input.iss; not input.iss == `a` }",
        "allow if not count([x | x := input.iss]) == 0",
        "allow if sort({1, 2}) == [1, 2]",
        'allow if { x := input.submods.cpu0; x["ear.status"] in {"affirming", "warning"} }',
    ],
)
def test_no_warning_without_a_reason(text: str) -> None:
    assert warnings(text) == ""


def documented() -> list[str]:
    return re.findall(
        r"```rego\n(package policy\n.*?)```", (DOCS / "policies.md").read_text(), re.DOTALL
    )


def test_what_we_ship_and_show_raises_no_doubt() -> None:
    for name in defaults.ATTESTATION:
        assert review(defaults.text(name), Kind.ATTESTATION) == ()
    shown = documented()
    assert shown
    image = {"pcr11": ["a" * 64]}
    members: dict[str, Any] = {"algorithm_digest": ["a" * 64], "dataset_digests": [["b" * 64]]}
    written = [
        owners.write(terms, said="x")
        for terms in (Terms(), Terms((image,)), Terms((image, image), (members, members)))
    ]
    texts = [defaults.text(defaults.RESOURCE), defaults.ALLOW_ALL, defaults.DENY_ALL]
    for text in (*texts, *shown, *written):
        assert review(text, Kind.RESOURCE) == (), text


def names(shape: Shape, value: Any, at: str) -> None:
    """Check that a value has no member that its shape does not know."""
    if shape.members is None or not isinstance(value, dict):
        return
    for name, member in value.items():
        assert name in shape.members or shape.others is not None, f"{at}.{name}"
        names(shape.members.get(name, shape.others or Shape()), member, f"{at}.{name}")


@pytest.mark.parametrize("tee", [*Tee])
def test_every_name_in_a_token_is_known(tee: Tee) -> None:
    claims = {"report_data": "r", "init_data": "i"} | ({} if tee in CLAIMED else {"x": 1})
    annotated = compose(tee, claims, {"nonce": "n"}, None)
    names(SHOWN[Kind.ATTESTATION]["input"], annotated, "input")
    key = signing.SigningKey.generate()
    extensions = [{"name": "mine", "value": 1}]
    token = issue(
        {"cpu0": Submodule(appraise({"hardware": 97}, extensions), "default", annotated, ("x",))},
        signer=Signer(key),
        issuer=Issuer("i", "d", "b", "p", dt.timedelta(minutes=5)),
        now=dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC),
    )
    found = signing.verify(token, key.public_jwk())
    names(SHOWN[Kind.RESOURCE]["input"], found, "input")
    names(SHOWN[Kind.RESOURCE]["data"], {"plugin": "", "resource-path": [], "query": {}}, "data")


def test_names_of_claims_are_those_of_the_documentation() -> None:
    page = (DOCS / "verifiers" / "tpm.md").read_text().partition("| claim | |\n")[2]
    table = page.partition("\n\n")[0]
    named = {
        name for row in table.splitlines() for name in re.findall("`(.*?)`", row.split("|")[1])
    }
    members = CLAIMED[Tee.TPM].members or {}
    assert named == members.keys() - {f"pcr{number:02}" for number in range(1, 23)}


def test_names_in_computations_are_those_of_the_event() -> None:
    some = "a" * 64
    claimed = ComputationEvent(some, some, some, (), some, (), some).claims()
    members = CLAIMED[Tee.TPM].members or {}
    assert (members["computation"].members or {}).keys() == claimed.keys()
