# SPDX-License-Identifier: Apache-2.0
"""The default policy on TPM evidence: everything registered and nothing else is affirming."""

from typing import Any

import pytest

from cocos.errors import ConfigError, Finding
from cocos.policy import defaults
from cocos.policy.appraisal import Status, Verdict, appraise
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy

ZERO = "00" * 32
CLAIMS: dict[str, Any] = {
    "pcr04": "a4" * 32,
    "pcr08": ZERO,
    "pcr11": "b1" * 32,
    "pcr12": ZERO,
    "ak_trusted": "manager-ca",
    "debug": False,
}
VALUES: dict[str, Any] = {
    "tpm_pcr04": ["ff" * 32, CLAIMS["pcr04"]],
    "tpm_pcr11": [CLAIMS["pcr11"]],
    "tpm_pcr12": [ZERO],
}
POLICY = Policy(defaults.text("default_cpu"))


def judge(
    claims: dict[str, Any] | None = None, values: dict[str, Any] | None = None, **shared: Any
) -> Verdict:
    tpm = {name: value for name, value in (CLAIMS | (claims or {})).items() if value is not ...}
    document = {
        "tpm": tpm,
        "init_data": tpm.get("pcr08"),
        "init_data_claims": None,
        "report_data": "",
        "runtime_data_claims": {},
    } | shared
    registered = {n: v for n, v in (VALUES | (values or {})).items() if v is not ...}
    rules = ("trust_claims", "extensions", "findings")
    base = BaseDocuments.of(registered, operator={})
    return appraise(*POLICY.evaluate(rules, document, base=base).values())


def test_the_registered_image_is_affirming() -> None:
    verdict = judge()
    assert verdict.status is Status.AFFIRMING
    assert verdict.findings == ()
    assert judge({"ak_trusted": "registered"}).status is Status.AFFIRMING
    assert judge(values={"tpm_pcr08": [ZERO]}).status is Status.AFFIRMING


@pytest.mark.parametrize("pcr", ["pcr04", "pcr11", "pcr12"])
@pytest.mark.parametrize("value", [..., None, "", ZERO[:-1], "cc" * 32, 0, ["a"], {}])
def test_another_value_of_a_pcr(pcr: str, value: Any) -> None:
    verdict = judge({pcr: value})
    assert verdict.status is Status.WARNING
    finding = verdict.findings[0]
    assert finding.check == f"tpm.{pcr}"
    assert finding.expected == " or ".join(VALUES[f"tpm_{pcr}"])


@pytest.mark.parametrize("name", sorted(VALUES))
@pytest.mark.parametrize("value", [..., None, [], {}, "", [None], [[]], [1.5], [["a4" * 32]]])
def test_nothing_usable_registered(name: str, value: Any) -> None:
    verdict = judge(values={name: value})
    assert verdict.status is Status.WARNING
    assert verdict.findings[0].check == name.replace("_", ".")


def test_the_value_itself_instead_of_a_list_is_nothing() -> None:
    assert judge(values={"tpm_pcr11": CLAIMS["pcr11"]}).status is Status.WARNING


def test_a_claim_that_is_missing_equals_no_value_that_is_missing() -> None:
    verdict = judge({"pcr11": None}, {"tpm_pcr11": None})
    assert verdict.status is Status.WARNING


@pytest.mark.parametrize("debug", [..., None, True, 0, "false", "", []])
def test_debug_must_be_denied(debug: Any) -> None:
    verdict = judge({"debug": debug})
    assert verdict.status is Status.WARNING
    assert verdict.findings[0].check == "tpm.debug"


@pytest.mark.parametrize(
    "trusted", [..., None, "", True, "ek-certificate", "MANAGER-CA", ["registered"]]
)
def test_the_key_must_be_trusted(trusted: Any) -> None:
    assert judge({"ak_trusted": trusted}).status is Status.CONTRAINDICATED


VENDORS: dict[str, Any] = {
    "ak_trusted": "vendor-ca",
    "ek_allowed": True,
    "ek_fingerprint": "ee" * 32,
    "pcr00": "00" * 31 + "01",
    "pcr07": "07" * 32,
}
FIRMWARE = {f"tpm_{pcr}": [ZERO, VENDORS[pcr]] for pcr in ("pcr00", "pcr07")}


def machine(verdict: Verdict) -> list[Finding]:
    """The findings about the machine; the others are the policy's verdicts."""
    return [finding for finding in verdict.findings if finding.check.startswith("tpm.")]


def test_a_vendors_tpm_that_is_allowed_and_whose_firmware_is_registered() -> None:
    assert judge(VENDORS, FIRMWARE).status is Status.AFFIRMING


@pytest.mark.parametrize("allowed", [..., None, False, "true", 1, [True], {}, ""])
def test_a_vendors_tpm_must_be_allowed(allowed: Any) -> None:
    verdict = judge(VENDORS | {"ek_allowed": allowed}, FIRMWARE)
    assert verdict.status is Status.CONTRAINDICATED
    (finding,) = machine(verdict)
    assert (finding.check, finding.actual) == ("tpm.ek", "ee" * 32)
    # Whether it is a list that a manager's TPM is on, or not on, changes nothing.
    assert judge({"ek_allowed": allowed}).status is Status.AFFIRMING


@pytest.mark.parametrize("pcr", ["pcr00", "pcr07"])
@pytest.mark.parametrize("value", [..., None, [], {}, "", [None], [ZERO], VENDORS["pcr07"], True])
def test_the_firmware_of_a_vendors_tpm_must_be_registered(pcr: str, value: Any) -> None:
    verdict = judge(VENDORS, FIRMWARE | {f"tpm_{pcr}": value})
    assert verdict.status is Status.WARNING
    (finding,) = machine(verdict)
    assert (finding.check, finding.actual) == (f"tpm.{pcr}", VENDORS[pcr])
    missing = value is ... or value is None
    assert ("have to be registered" in finding.problem) == missing


@pytest.mark.parametrize("pcr", ["pcr00", "pcr07"])
@pytest.mark.parametrize("value", [..., None, "", "cc" * 32, []])
def test_the_firmware_of_a_vendors_tpm_must_be_that_one(pcr: str, value: Any) -> None:
    verdict = judge(VENDORS | {pcr: value}, FIRMWARE)
    assert verdict.status is Status.WARNING
    assert [finding.check for finding in machine(verdict)] == [f"tpm.{pcr}"]


@pytest.mark.parametrize("trusted", [..., None, "", "vendor", ["vendor-ca"], "other-ca"])
def test_a_kind_that_is_not_known_is_worth_nothing_and_needs_everything(trusted: Any) -> None:
    verdict = judge(VENDORS | {"ak_trusted": trusted})
    assert verdict.status is Status.CONTRAINDICATED
    checks = {finding.check for finding in machine(verdict)}
    assert checks == {"tpm.ek", "tpm.pcr00", "tpm.pcr07"}
    assert judge(VENDORS | {"ak_trusted": trusted}, FIRMWARE).status is Status.CONTRAINDICATED


def test_init_data_must_be_shown_and_as_pinned() -> None:
    some = "11" * 32
    hidden = judge({"pcr08": some})
    assert hidden.status is Status.WARNING
    assert hidden.findings[0].check == "init_data"
    shown: dict[str, Any] = {"init_data_claims": {"aa.toml": {}}}
    assert judge({"pcr08": some}, **shown).status is Status.AFFIRMING
    assert judge({"pcr08": some}, {"tpm_pcr08": [ZERO, some]}, **shown).status is Status.AFFIRMING
    unusable: list[Any] = [[ZERO], [], "", {}, some]
    for pinned in unusable:
        other = judge({"pcr08": some}, {"tpm_pcr08": pinned}, **shown)
        assert other.status is Status.WARNING
        assert other.findings[0].check == "tpm.pcr08"


OTHERS = ["00", "01", "02", "03", "05", "06", "07", "09", "10", "13", "14", "15"]


@pytest.mark.parametrize("number", OTHERS)
def test_every_other_pcr_counts_once_it_is_registered(number: str) -> None:
    pcr, name, value = f"pcr{number}", f"tpm_pcr{number}", "dd" * 32
    assert judge({pcr: value}).status is Status.AFFIRMING
    assert judge({pcr: value}, {name: [ZERO, value]}).status is Status.AFFIRMING
    unusable: list[Any] = [[ZERO], [], "", {}, value, False]
    for pinned in unusable:
        other = judge({pcr: value}, {name: pinned})
        assert other.status is Status.WARNING
        assert other.findings[0].check == f"tpm.{pcr}"
    assert judge(values={name: [value]}).status is Status.WARNING, "no such claim"


def test_everything_is_said_at_once() -> None:
    verdict = judge({"pcr04": ZERO, "pcr08": "11" * 32, "pcr11": ZERO, "debug": True})
    checks = {finding.check for finding in verdict.findings}
    assert checks >= {"tpm.pcr04", "tpm.pcr11", "tpm.debug", "init_data"}


@pytest.mark.parametrize("document", [None, [], "tpm", 1, True])
def test_claims_that_are_no_object(document: Any) -> None:
    assert judge(tpm=document).status is Status.CONTRAINDICATED


@pytest.mark.parametrize("pcr", ["pcr00", "pcr07", "pcr08", "pcr14"])
def test_a_registered_pcr_still_counts_when_its_value_has_expired(pcr: str) -> None:
    """Else the policy would ask for less a year later, and nobody would notice."""
    document = {"tpm": {**CLAIMS, pcr: "dd" * 32}, "init_data_claims": None}
    base = BaseDocuments.of(VALUES, lapsed=[f"tpm_{pcr}"], operator={})
    with pytest.raises(ConfigError, match=f"tpm_{pcr} has expired"):
        POLICY.evaluate(["trust_claims"], document, base=base)
