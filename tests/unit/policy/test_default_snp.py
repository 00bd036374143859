# SPDX-License-Identifier: Apache-2.0
"""The default policy on SNP evidence: everything registered and nothing else is affirming."""

from typing import Any

import pytest

from cocos.policy import defaults
from cocos.policy.appraisal import Status, Verdict, appraise
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy

POLICY = Policy(defaults.text("default_cpu"))
ZERO = "00" * 32
SNP: dict[str, Any] = {
    "reported_tcb_bootloader": 10,
    "reported_tcb_tee": 0,
    "reported_tcb_snp": 23,
    "reported_tcb_microcode": 25,
    "measurement": "6a" * 48,
    "policy_debug_allowed": False,
    "policy_migrate_ma": False,
    "platform_smt_enabled": True,
    "platform_tsme_enabled": False,
    "policy_abi_major": 0,
    "policy_abi_minor": 0,
    "policy_single_socket": False,
    "policy_smt_allowed": True,
    "init_data": ZERO,
    "authority_insecure": False,
}
VALUES: dict[str, Any] = {
    "snp_bootloader": [10],
    "snp_tee_svn": [0],
    "snp_snp_svn": [22, 23],
    "snp_microcode": [25],
    "snp_launch_measurement": ["6a" * 48],
}
SETTINGS: dict[str, Any] = {
    "snp_smt_enabled": True,
    "snp_tsme_enabled": [False],
    "snp_guest_abi_major": 0,
    "snp_guest_abi_minor": 0,
    "snp_single_socket": False,
    "snp_smt_allowed": True,
}
AZURE: dict[str, Any] = {
    name: str(value).lower() if name != "measurement" else "Zm9v" for name, value in SNP.items()
} | {"tpm": {"pcr11": "b1" * 32}, "authority_insecure": False}
AZURE_VALUES: dict[str, Any] = {
    "tcb_bootloader": ["10"],
    "tcb_tee": ["0"],
    "tcb_snp": ["23"],
    "tcb_microcode": ["25"],
    "measurement": ["Zm9v"],
    "snp_pcr11": ["b1" * 32],
    "smt_enabled": ["true"],
    "tsme_enabled": ["false"],
    "abi_major": ["0"],
    "abi_minor": ["0"],
    "single_socket": ["false"],
    "smt_allowed": ["true"],
}


def judge(tee: str, claims: dict[str, Any], values: dict[str, Any], shown: Any = None) -> Verdict:
    given = {name: value for name, value in claims.items() if value is not ...}
    # As the service composes it: what all TEEs have is beside the claims, not in them.
    init_data = given.pop("init_data", None)
    document = {
        tee: given,
        "init_data": init_data,
        "init_data_claims": shown,
        "report_data": "",
        "runtime_data_claims": {},
    }
    registered = {name: value for name, value in values.items() if value is not ...}
    base = BaseDocuments.of(registered, operator={})
    rules = ("trust_claims", "extensions", "findings")
    return appraise(*POLICY.evaluate(rules, document, base=base).values())


def vector(verdict: Verdict) -> tuple[int, int, int]:
    found = verdict.vector
    return found["hardware"], found["executables"], found["configuration"]


def checks(verdict: Verdict) -> list[str]:
    """What the policy found, without the names of the claims that follow from it."""
    return [found.check for found in verdict.findings if found.check not in verdict.vector]


def test_everything_registered() -> None:
    verdict = judge("snp", SNP, VALUES | SETTINGS)
    assert verdict.status is Status.AFFIRMING
    assert vector(verdict) == (2, 3, 2)
    assert verdict.findings == ()
    azure = judge("az-snp-vtpm", AZURE, AZURE_VALUES)
    assert vector(azure) == (2, 3, 2)
    assert azure.findings == ()


def test_settings_that_nobody_registered_affirm_less() -> None:
    verdict = judge("snp", SNP, VALUES)
    assert vector(verdict) == (2, 3, 3)
    assert verdict.status is Status.AFFIRMING


def test_nothing_registered() -> None:
    for tee, claims in (("snp", SNP), ("az-snp-vtpm", AZURE)):
        verdict = judge(tee, claims, {})
        assert verdict.status is Status.CONTRAINDICATED
        assert f"{tee}.measurement" in {finding.check for finding in verdict.findings}


@pytest.mark.parametrize("claim", ["bootloader", "tee", "snp", "microcode"])
@pytest.mark.parametrize("value", [..., None, 99, "10", [], {}, True])
def test_another_level(claim: str, value: Any) -> None:
    verdict = judge("snp", SNP | {f"reported_tcb_{claim}": value}, VALUES | SETTINGS)
    assert vector(verdict) == (97, 3, 2)
    assert checks(verdict) == [f"snp.reported_tcb_{claim}"]


@pytest.mark.parametrize("value", [..., None, "", "6b" * 48, 0, [], {}])
def test_another_measurement(value: Any) -> None:
    verdict = judge("snp", SNP | {"measurement": value}, VALUES | SETTINGS)
    assert vector(verdict) == (2, 33, 2)
    assert checks(verdict) == ["snp.measurement"]


@pytest.mark.parametrize("claim", ["policy_debug_allowed", "policy_migrate_ma"])
@pytest.mark.parametrize("value", [..., None, True, "true", 0, "", []])
def test_what_opens_the_memory(claim: str, value: Any) -> None:
    verdict = judge("snp", SNP | {claim: value}, VALUES | SETTINGS)
    assert vector(verdict) == (2, 3, 36)
    assert checks(verdict) == [f"snp.{claim}"]
    azure = judge("az-snp-vtpm", AZURE | {claim: value}, AZURE_VALUES)
    assert vector(azure) == (2, 3, 36)


@pytest.mark.parametrize("value", [..., None, True, "true", 0, "simulated"])
def test_another_authority(value: Any) -> None:
    verdict = judge("snp", SNP | {"authority_insecure": value}, VALUES | SETTINGS)
    assert vector(verdict) == (97, 3, 2)
    assert checks(verdict) == ["snp.authority"]


def test_init_data_that_is_not_shown() -> None:
    claims = SNP | {"init_data": "11" * 32}
    verdict = judge("snp", claims, VALUES | SETTINGS)
    assert vector(verdict) == (2, 3, 36)
    assert checks(verdict) == ["snp.init_data"]
    assert vector(judge("snp", claims, VALUES | SETTINGS, shown={"aa.toml": {}})) == (2, 3, 2)


@pytest.mark.parametrize("value", [..., None, "", 0, "11" * 32])
def test_init_data_that_is_not_shown_on_azure(value: Any) -> None:
    """Whoever starts the VM passes it in: what runs there may be his choice."""
    claims = AZURE | {"init_data": value}
    verdict = judge("az-snp-vtpm", claims, AZURE_VALUES)
    assert vector(verdict) == (2, 3, 36)
    assert checks(verdict) == ["az-snp-vtpm.init_data"]
    assert vector(judge("az-snp-vtpm", claims, AZURE_VALUES, shown={"aa.toml": {}})) == (2, 3, 2)
    others = AZURE_VALUES | {"snp_pcr08": ["22" * 32]}
    assert vector(judge("az-snp-vtpm", claims, others)) == (2, 3, 36)


def test_a_boot_loader_that_measures_into_pcr_8_on_azure() -> None:
    claims = AZURE | {"init_data": "22" * 32}
    verdict = judge("az-snp-vtpm", claims, AZURE_VALUES | {"snp_pcr08": ["22" * 32]})
    assert vector(verdict) == (2, 3, 2)


def test_turins_first_level_counts_where_it_is_registered() -> None:
    claims = SNP | {"reported_tcb_fmc": 2}
    assert vector(judge("snp", claims, VALUES)) == (2, 3, 3)
    assert vector(judge("snp", claims, VALUES | {"snp_fmc": [2, 3]})) == (2, 3, 3)
    old = judge("snp", claims, VALUES | {"snp_fmc": [3]})
    assert vector(old) == (97, 3, 3)
    assert checks(old) == ["snp.reported_tcb_fmc"]


@pytest.mark.parametrize("name", AZURE_VALUES)
def test_azure_wants_all_of_it(name: str) -> None:
    verdict = judge("az-snp-vtpm", AZURE, AZURE_VALUES | {name: ...})
    assert verdict.status is not Status.AFFIRMING
    assert len(checks(verdict)) == 1


def test_neither_takes_the_others_values() -> None:
    assert judge("snp", SNP, AZURE_VALUES).status is not Status.AFFIRMING
    assert judge("az-snp-vtpm", AZURE, VALUES | SETTINGS).status is not Status.AFFIRMING
