# SPDX-License-Identifier: Apache-2.0
"""What policies are shown: the names in tokens, claims and requests.

One place, for those who make tokens and for those who look for names that no token has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cocos.policy.appraisal import (
    APPRAISED_BY,
    CLAIMS,
    EVIDENCE,
    FINDINGS,
    INSECURE,
    STATUS,
    VECTOR,
    Status,
)
from cocos.policy.documents import Kind
from cocos.wire.kbs.protocol import Tee


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a value.

    Attributes:
        letter: Its type, as in :data:`cocos.policy.builtins.ALLOWED`.
        members: Name → member; None where nothing is known of them.
        others: Members of any other name; None where there are none.
        values: All that a text can be; empty where nothing is known.
    """

    letter: str = "*"
    members: Mapping[str, "Shape"] | None = None
    others: "Shape | None" = None
    values: frozenset[str] = field(default_factory=frozenset)


ANY: Final = Shape()
_TEXT: Final = Shape("s")
_OBJECT: Final = Shape("o")
_NUMBER: Final = Shape("n")
_LIST: Final = Shape("a")

_COMPUTATION: Final = Shape(
    "o",
    {
        **dict.fromkeys(("manifest_digest", "algorithm_digest"), _TEXT),
        **dict.fromkeys(("arguments_digest", "environment_digest", "consumers_digest"), _TEXT),
        **dict.fromkeys(("dataset_digests", "kbs"), _LIST),
    },
)
_UEFI: Final = ("index", "type", "digest", "details", "digest_matches_event")
_RUNTIME: Final = ("index", "domain", "operation", "content")
_HEADER: Final = ("version", "att_key_type", "tee_type", "reserved", "vendor_id", "user_data")
_TD_BODY: Final = (
    *("tcb_svn", "mr_seam", "mrsigner_seam", "seam_attributes", "td_attributes", "xfam"),
    *("mr_td", "mr_config_id", "mr_owner", "mr_owner_config"),
    *("rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3", "report_data", "tee_tcb_svn2", "mr_servicetd"),
)
_ENCLAVE_BODY: Final = (
    *("cpu_svn", "misc_select", "attributes.flags", "attributes.xfrm", "mr_enclave"),
    *("mr_signer", "config_id", "isv_ext_prod_id", "isv_prod_id", "isv_svn", "config_svn"),
    *("isv_family_id", "report_data", "reserved1", "reserved2", "reserved3", "reserved4"),
)
_TD_ATTRIBUTES: Final = ("debug", "septve_disable", "protection_keys", "key_locker", "perfmon")
_CCEL: Final = ("index", "type_name", "digests", "event", "details", "digest_matches_event")
_STATUS: Final = frozenset(
    {
        *("UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "OutOfDate"),
        *("ConfigurationAndSWHardeningNeeded", "OutOfDateConfigurationNeeded"),
        *("TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded"),
    }
)
_PLATFORM: Final = {
    "tcb_status": Shape("s", values=_STATUS),
    "collateral_expiration_status": Shape("s", values=frozenset({"0"})),
    "advisory_ids": _LIST,
    **dict.fromkeys(("tcb_date", "earliest_issue_date", "latest_issue_date"), _TEXT),
    **dict.fromkeys(("earliest_expiration_date", "platform_provider_id"), _TEXT),
    **dict.fromkeys(("root_key_id", "sgx_type", "fmspc", "platform_instance_id"), _TEXT),
    **dict.fromkeys(("tcb_eval_num", "pck_crl_num", "root_ca_crl_num"), _NUMBER),
    **dict.fromkeys(("is_dynamic_platform", "is_cached_keys", "is_smt_enabled"), ANY),
}
_DOMAIN: Final = {
    **_PLATFORM,
    "quote": Shape(
        "o",
        {
            "header": Shape("o", dict.fromkeys(_HEADER, _TEXT)),
            "body": Shape("o", dict.fromkeys(_TD_BODY, _TEXT)),
            **dict.fromkeys(("type", "size"), _TEXT),
        },
    ),
    "td_attributes": Shape("o", dict.fromkeys(_TD_ATTRIBUTES, ANY)),
}
_RUN_CLAIMS: Final = {
    "computations": Shape("a", {}, others=_COMPUTATION),
    "computation": _COMPUTATION,
    "runtime_events": Shape("a", {}, others=Shape("o", dict.fromkeys(_RUNTIME, ANY))),
}
_SNP: Final[Mapping[str, Shape]] = {
    **dict.fromkeys(("policy_smt_allowed", "policy_migrate_ma", "policy_debug_allowed"), ANY),
    **dict.fromkeys(("policy_single_socket", "authority_insecure"), ANY),
    **dict.fromkeys(("platform_tsme_enabled", "platform_smt_enabled"), ANY),
    **dict.fromkeys(("policy_abi_major", "policy_abi_minor", "vmpl", "guest_svn"), _NUMBER),
    **dict.fromkeys(("reported_tcb_bootloader", "reported_tcb_tee"), _NUMBER),
    **dict.fromkeys(("reported_tcb_snp", "reported_tcb_microcode"), _NUMBER),
    **dict.fromkeys(("reported_tcb_fmc", "report_version"), _NUMBER),
    **dict.fromkeys(("measurement", "chip_id", "report_data", "init_data", "report_id"), _TEXT),
    **dict.fromkeys(("product", "signing_key", "revocation", "family_id", "image_id"), _TEXT),
    **dict.fromkeys(("id_key_digest", "author_key_digest", "computations_bound_by"), _TEXT),
    **_RUN_CLAIMS,
}
CLAIMED: Final[Mapping[Tee, Shape]] = {
    Tee.AZ_TDX_VTPM: Shape(
        "o",
        {
            **_DOMAIN,
            "tpm": Shape("o", {f"pcr{index:02}": _TEXT for index in range(24)}),
        },
    ),
    Tee.TDX: Shape(
        "o",
        {
            **_DOMAIN,
            "uefi_event_logs": Shape("a", {}, others=Shape("o", dict.fromkeys(_CCEL, ANY))),
            "computations": Shape("a", {}, others=_COMPUTATION),
            "computation": _COMPUTATION,
            "runtime_events": Shape("a", {}, others=Shape("o", dict.fromkeys(_RUNTIME, ANY))),
        },
    ),
    Tee.SGX: Shape(
        "o",
        {
            **_PLATFORM,
            "header": Shape(
                "o", dict.fromkeys((*_HEADER, "att_key_data_0", "qe_svn", "pce_svn"), _TEXT)
            ),
            "body": Shape("o", dict.fromkeys(_ENCLAVE_BODY, _TEXT)),
            "debug": ANY,
        },
    ),
    Tee.TPM: Shape(
        "o",
        {
            **{f"pcr{index:02}": _TEXT for index in range(24)},
            **dict.fromkeys(("ak_public", "ak_trusted", "cmdline"), _TEXT),
            **dict.fromkeys(("ek_fingerprint", "ek_ca", "ek_ca_fingerprint"), _TEXT),
            **dict.fromkeys(("ek_allowed", "debug"), ANY),
            "uefi": Shape("a", {}, others=Shape("o", dict.fromkeys(_UEFI, ANY))),
            "computations": Shape("a", {}, others=_COMPUTATION),
            "computation": _COMPUTATION,
            "runtime_events": Shape("a", {}, others=Shape("o", dict.fromkeys(_RUNTIME, ANY))),
        },
    ),
    Tee.SNP: Shape("o", _SNP),
    Tee.AZ_SNP_VTPM: Shape(
        "o",
        {
            **dict.fromkeys(_SNP.keys() - _RUN_CLAIMS.keys() - {"computations_bound_by"}, _TEXT),
            "tpm": Shape("o", {f"pcr{index:02}": _TEXT for index in range(24)}),
        },
    ),
    Tee.SAMPLE: Shape(
        "o",
        {
            **dict.fromkeys(("svn", "launch_digest", "debug"), ANY),
            "platform_version": Shape("o", dict.fromkeys(("major", "minor"), _NUMBER)),
        },
    ),
    Tee.CCA: Shape(
        "o",
        {
            "realm": Shape(
                "o",
                {
                    **dict.fromkeys(("cca-realm-personalization-value",), _TEXT),
                    **dict.fromkeys(("cca-realm-initial-measurement",), _TEXT),
                    **dict.fromkeys(("cca-realm-hash-algo-id", "cca-realm-challenge"), _TEXT),
                    "cca-realm-extensible-measurements": _LIST,
                },
            ),
            "platform": Shape(
                "o",
                {
                    **dict.fromkeys(("cca-platform-instance-id", "cca-platform-config"), _TEXT),
                    "cca-platform-implementation-id": _TEXT,
                    "cca-platform-lifecycle": _NUMBER,
                    "cca-platform-sw-components": _LIST,
                },
            ),
        },
    ),
    Tee.NVIDIA: Shape(
        "o",
        {
            **dict.fromkeys(("arch", "uuid", "device_serial"), _TEXT),
            "measurements": Shape("o", {}, others=_TEXT),
            "config": Shape("o", {}, others=ANY),
            "revocation_checked": ANY,
        },
    ),
    Tee.SAMPLE_DEVICE: Shape("o", {"svn": ANY}),
}
"""What verifiers of ours claim, below the name of the TEE."""

_ANNOTATED: Final = Shape(
    "o",
    {
        **{tee.value: CLAIMED.get(tee, _OBJECT) for tee in Tee},
        "report_data": _TEXT,
        "runtime_data_claims": ANY,
        "init_data": _TEXT,
        "init_data_claims": ANY,
        "kbs": Shape("o", dict.fromkeys(("named", "by", "authenticated"), ANY)),
        "insecure": _LIST,
    },
)
_SUBMODULE: Final = Shape(
    "o",
    {
        STATUS: Shape("s", values=frozenset(Status)),
        VECTOR: Shape("o", dict.fromkeys(CLAIMS, _NUMBER)),
        APPRAISED_BY: _TEXT,
        EVIDENCE: _ANNOTATED,
        FINDINGS: ANY,
        INSECURE: ANY,
    },
    others=ANY,  # a policy's extensions
)
_TOKEN: Final = Shape(
    "o",
    {
        "eat_profile": _TEXT,
        "ear.verifier-id": Shape("o", {"developer": _TEXT, "build": _TEXT}),
        "submods": Shape("o", dict.fromkeys(("cpu0", "gpu0"), _SUBMODULE), others=_SUBMODULE),
        "iat": _NUMBER,
        "exp": _NUMBER,
        "nbf": _NUMBER,
        "iss": _TEXT,
        "jti": _TEXT,
    },
)

SHOWN: Final[Mapping[Kind, Mapping[str, Shape]]] = {
    Kind.RESOURCE: {
        "input": _TOKEN,
        "data": Shape("o", {"plugin": _TEXT, "resource-path": Shape("a"), "query": _OBJECT}),
    },
    Kind.ATTESTATION: {
        "input": _ANNOTATED,
        "data": Shape("o", {"operator": Shape("o", {"insecure_allow_sample": ANY})}),
    },
}
"""Kind of policy → what its ``input`` and ``data`` are."""
