# SPDX-License-Identifier: Apache-2.0
"""What a policy is told of KBSs when somebody on the way left a part of the evidence out."""

import pytest

from cocos.attestation_service.annotate import compose
from cocos.wire.init_data import InitDocument, build
from cocos.wire.kbs.protocol import Tee

KNOWN = f"http://10.0.2.2:8080#token-key={'A' * 43}"
TOLD = InitDocument.parse(build({"aa.toml": f'[token_configs.kbs]\nurl = "{KNOWN}"\n'}))


OWN = f"http://own:8080#token-key={'B' * 42}A"


@pytest.mark.parametrize(
    ("logged", "authenticated"),
    [
        ({"computations": []}, True),
        ({"computations": [{"kbs": [""]}]}, True),
        ({"computations": [{"kbs": ["http://other:8080"]}]}, False),
        # No log is signed: whoever hides one must not gain by it.
        ({}, False),
    ],
)
def test_a_computation_that_is_not_shown_may_have_had_any_kbs(
    logged: dict[str, object], authenticated: bool
) -> None:
    claims = {"report_data": "", "init_data": TOLD.digest.hex(), **logged}
    kbs = compose(Tee.TPM, claims, {}, TOLD)["kbs"]
    assert kbs["authenticated"] is authenticated
    assert kbs["named"][0]["url"] == "http://10.0.2.2:8080"
    assert (len(kbs["named"]) == 1) is authenticated


@pytest.mark.parametrize("bound", [{}, {"init_data": "00" * 32}])
def test_without_init_data_the_manifests_kbs_is_all(bound: dict[str, str]) -> None:
    claims = {"report_data": "", "computations": [{"kbs": [OWN]}], **bound}
    assert compose(Tee.TPM, claims, {}, None)["kbs"]["authenticated"] is True


def test_init_data_that_is_not_shown_may_name_any_kbs() -> None:
    claims = {"report_data": "", "computations": [{"kbs": [OWN]}], "init_data": "0a" * 32}
    kbs = compose(Tee.TPM, claims, {}, None)["kbs"]
    assert kbs["authenticated"] is False
    assert [each["url"] for each in kbs["named"]] == ["http://own:8080", None]


@pytest.mark.parametrize("name", ["offline_fs_kbc", "online_sev_kbc", ""])
def test_a_data_hub_that_asks_no_kbs_authenticates_none(name: str) -> None:
    text = f'[kbc]\nname = "{name}"\nurl = "{KNOWN}"\n'
    document = InitDocument.parse(build({"cdh.toml": text}))
    claims = {"report_data": "", "computations": [], "init_data": document.digest.hex()}
    assert compose(Tee.TPM, claims, {}, document)["kbs"]["authenticated"] is False


@pytest.mark.parametrize(
    ("line", "named", "authenticated"),
    [
        ("quiet", [KNOWN], True),
        ("quiet agent.aa_kbc_params=cc_kbc::http://10.0.2.2:8080", [KNOWN], True),
        ("quiet agent.aa_kbc_params=offline_fs_kbc::null", [KNOWN], True),
        ("agent.aa_kbc_params=cc_kbc::http://thief", [KNOWN, "http://thief"], False),
        ("agent.aa_kbc_params=cc_kbc::file:///x", [KNOWN, None], False),
        # Together with what the KBS is known by, longer than any program would read.
        (f"agent.aa_kbc_params=cc_kbc::http://10.0.2.2:8080/{'a' * 8150}", [KNOWN, None], False),
    ],
)
def test_the_kernels_command_line_names_a_kbs_to_guests_of_others(
    line: str, named: list[str | None], authenticated: bool
) -> None:
    """Of two programs one may go by the line, and the other by the init data."""
    claims = {"report_data": "", "computations": [], "init_data": "0a" * 32, "cmdline": line}
    kbs = compose(Tee.TPM, claims, {}, TOLD)["kbs"]
    assert kbs["authenticated"] is authenticated
    shown = [each and each.partition("#")[0] for each in named]
    assert [each["url"] for each in kbs["named"]] == shown
