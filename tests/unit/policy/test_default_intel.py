# SPDX-License-Identifier: Apache-2.0
"""The default policy on evidence of TDX, of TDX on Azure, and of SGX."""

import copy
from typing import Any

import pytest

from cocos.policy import defaults
from cocos.policy.appraisal import Status, Verdict, appraise
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy

VENDOR = "939a7233f79c4ca9940a0db3957f0607"
PLATFORM = {"tcb_status": "UpToDate", "collateral_expiration_status": "0"}
QUOTE = {
    "header": {"tee_type": "81000000", "vendor_id": VENDOR},
    "body": {"mr_td": "aa", "rtmr_1": "b1", "rtmr_2": "b2", "xfam": "cc"},
}
TDX: dict[str, Any] = {
    **PLATFORM,
    "quote": QUOTE,
    "td_attributes": {"debug": False, "septve_disable": True},
}
CLAIMS: dict[str, dict[str, Any]] = {
    "tdx": TDX,
    "az-tdx-vtpm": {**TDX, "tpm": {"pcr11": "d1"}},
    "sgx": {
        **PLATFORM,
        "header": {"tee_type": "00000000", "vendor_id": VENDOR},
        "body": {"mr_enclave": "ee"},
        "debug": False,
    },
}
VALUES = {
    "mr_td": ["a0", "aa"],
    "rtmr_1": ["b1"],
    "rtmr_2": ["b2"],
    "xfam": ["cc"],
    "tdx_pcr11": ["d1"],
    "mr_enclave": ["ee"],
}
POLICY = Policy(defaults.text("default_cpu"))


def judge(
    tee: str, claims: dict[str, Any], values: dict[str, Any] | None = None, **shared: Any
) -> Verdict:
    document = {tee: claims, "init_data": "00" * 48, "init_data_claims": None, **shared}
    base = BaseDocuments.of(VALUES if values is None else values, operator={})
    rules = ("trust_claims", "extensions", "findings")
    return appraise(*POLICY.evaluate(rules, document, base=base).values())


def changed(tee: str, name: str, value: Any) -> dict[str, Any]:
    claims = copy.deepcopy(CLAIMS[tee])
    *path, last = name.split(".")
    inner = claims
    for part in path:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return claims


@pytest.mark.parametrize("tee", CLAIMS)
def test_registered_is_affirming(tee: str) -> None:
    verdict = judge(tee, CLAIMS[tee])
    assert verdict.status is Status.AFFIRMING
    assert verdict.findings == ()


NEEDED = [
    *(
        (tee, name)
        for tee in ("tdx", "az-tdx-vtpm")
        for name in (
            *("tcb_status", "collateral_expiration_status", "td_attributes.debug"),
            *("quote.header.tee_type", "quote.header.vendor_id"),
            *("quote.body.mr_td", "quote.body.xfam"),
        )
    ),
    ("tdx", "quote.body.rtmr_1"),
    ("tdx", "quote.body.rtmr_2"),
    ("az-tdx-vtpm", "tpm.pcr11"),
    ("sgx", "tcb_status"),
    ("sgx", "collateral_expiration_status"),
    ("sgx", "header.tee_type"),
    ("sgx", "header.vendor_id"),
    ("sgx", "body.mr_enclave"),
    ("sgx", "debug"),
]


@pytest.mark.parametrize(("tee", "name"), NEEDED)
@pytest.mark.parametrize("value", [..., None, "", "OutOfDate", True, 0, [], ["aa"], {}])
def test_each_claim_counts(tee: str, name: str, value: Any) -> None:
    verdict = judge(tee, changed(tee, name, value))
    assert verdict.status is not Status.AFFIRMING
    assert verdict.findings[0].check == f"{tee}.{name}"


@pytest.mark.parametrize(
    ("tee", "name"),
    [
        *(("tdx", name) for name in ("mr_td", "rtmr_1", "rtmr_2", "xfam")),
        *(("az-tdx-vtpm", name) for name in ("mr_td", "tdx_pcr11", "xfam")),
        ("sgx", "mr_enclave"),
    ],
)
@pytest.mark.parametrize("value", [..., None, [], {}, "", [None], [[]], [1]])
def test_nothing_usable_registered(tee: str, name: str, value: Any) -> None:
    values = {key: each for key, each in (VALUES | {name: value}).items() if each is not ...}
    verdict = judge(tee, CLAIMS[tee], values)
    assert verdict.status is not Status.AFFIRMING
    assert verdict.findings[0].check.startswith(f"{tee}.")


@pytest.mark.parametrize("tee", CLAIMS)
def test_what_the_host_passed_in_is_shown(tee: str) -> None:
    assert judge(tee, CLAIMS[tee], init_data="01").status is Status.WARNING
    assert judge(tee, CLAIMS[tee], init_data=None).status is Status.WARNING
    shown = judge(tee, CLAIMS[tee], init_data="01", init_data_claims={"aa.toml": "x"})
    assert shown.status is Status.AFFIRMING
    values = VALUES | {"tdx_pcr08": ["01"]}
    registered = judge(tee, CLAIMS[tee], values, init_data="01").status
    assert (registered is Status.AFFIRMING) is (tee == "az-tdx-vtpm")
    assert judge(tee, CLAIMS[tee], values, init_data="02").status is Status.WARNING


@pytest.mark.parametrize("value", [..., None, False, "true", 1])
def test_a_domain_whose_host_may_raise_exceptions_in_it(value: Any) -> None:
    name = "td_attributes.septve_disable"
    verdict = judge("tdx", changed("tdx", name, value))
    assert verdict.status is not Status.AFFIRMING
    assert verdict.findings[0].check == f"tdx.{name}"
    # On Azure they are the paravisor's business, which is measured.
    assert judge("az-tdx-vtpm", changed("az-tdx-vtpm", name, False)).status is Status.AFFIRMING


def test_kernel_and_options_in_the_log() -> None:
    log = [
        {
            "type_name": "EV_EFI_BOOT_SERVICES_APPLICATION",
            "details": {"device_paths": ["File(kernel)"]},
            "digests": [{"alg": "SHA-384", "digest": "k1"}],
        },
        {
            "type_name": "EV_EVENT_TAG",
            "details": {"string": "LOADED_IMAGE::LoadOptions"},
            "digests": [{"alg": "SHA-384", "digest": "o1"}],
        },
    ]
    claims = {**TDX, "uefi_event_logs": log}
    for kernel, options, found in (("k1", ["o1"], 3), (["k1"], "o1", 3), (["k2"], ["o1"], 4)):
        values = {**VALUES, "tdvfkernel": kernel, "tdvfkernelparams": options}
        verdict = judge("tdx", claims, values)
        assert verdict.vector["executables"] == found
        assert verdict.status is Status.AFFIRMING
    assert judge("tdx", claims).vector["executables"] == 4
