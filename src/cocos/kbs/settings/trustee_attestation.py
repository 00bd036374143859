# SPDX-License-Identifier: Apache-2.0
"""The parts of Trustee's configuration file that are about attestation, as flat settings."""

from typing import Final

from cocos.kbs.settings.table import Flat, Table

_INSIDE: Final = "the attestation service is inside this KBS"
_ONE_CHANNEL: Final = "one channel carries all calls"
_INTEL: Final = "Intel Trust Authority is not supported"
_IN_STORAGE: Final = "policies and reference values are kept in the KBS's storage"
_OPA: Final = "policies are Rego, evaluated in this program"
_EAR: Final = "tokens are EAR; policies that were written for Simple tokens must be changed"
_VALUES: Final = "SWID has no signature that anybody verifies; CoRIMs count with corim_keys"
_VERIFIER: Final = "this verifier takes what comes with the evidence, and its own sources"
_ONE_TOKEN: Final = "tokens are of one kind"  # noqa: S105 - no secret


def service(section: Table) -> Flat:
    """Read ``[attestation_service]``, since v0.11."""
    kind = section.choice(
        "type",
        {
            "coco_as_builtin": None,
            "CoCoASBuiltIn": None,
            "coco_as_grpc": None,
            "CoCoASGrpc": None,
            **dict.fromkeys(("intel_ta", "IntelTA"), _INTEL),
        },
    )
    flat: Flat = {"timeout": section.number("timeout")} | _tokens(section)
    rvps = section.table("rvps_config")
    flat["_overrides"] = {
        section.name("storage_type"): section.text("storage_type"),
        rvps.name("storage_type"): rvps.text("storage_type"),
    }
    flat |= _rvps(rvps)
    _verifiers(section.table("verifier_config"))
    section.without_effect(_IN_STORAGE, "work_dir")
    section.without_effect(_OPA, "policy_engine")
    if kind in {"coco_as_grpc", "CoCoASGrpc"}:
        flat |= _server(section)
    else:
        section.refuse(_INSIDE, "as_addr", "pool_size")
        flat["attestation"] = "builtin"
    section.refuse(
        _INTEL, "base_url", "api_key", "certs_file", "policy_ids", "allow_unmatched_policy"
    )
    section.end()
    return flat


def historic(section: Table) -> Flat:
    """Read ``[as_config]``, up to v0.10."""
    flat = _tokens(section) | _rvps(section.table("rvps_config"))
    section.without_effect(_IN_STORAGE, "work_dir", "rvps_store_type")
    section.without_effect(_OPA, "policy_engine")
    section.end()
    return flat


def remote(section: Table) -> Flat:
    """Read ``[grpc_config]``, up to v0.10."""
    flat = _server(section)
    section.end()
    return flat


def _server(section: Table) -> Flat:
    section.without_effect(_ONE_CHANNEL, "pool_size")
    return {"attestation": section.text("as_addr") or "http://127.0.0.1:50004"}


def intel(section: Table) -> Flat:
    """Refuse ``[intel_trust_authority_config]``, once called Amber, up to v0.10."""
    section.refuse(
        _INTEL, "base_url", "api_key", "certs_file", "policy_ids", "allow_unmatched_policy"
    )
    section.end()
    return {}


def token(section: Table) -> Flat:
    """Read ``[attestation_token]``, since v0.11: whose tokens count."""
    section.choice("type", {"CoCo": None, "Jwk": None})
    section.without_effect(_ONE_TOKEN, "attestation_token_type")
    flat = {
        "trusted_certs": section.texts("trusted_certs_paths"),
        "trusted_jwk_sets": section.texts("trusted_jwk_sets"),
        "extra_teekey_paths": section.texts("extra_teekey_paths"),
        "insecure_header_jwk": _either(section, "insecure_header_jwk", "insecure_key"),
    }
    section.end()
    return flat


def historic_token(section: Table) -> Flat:
    """Read ``[attestation_token_config]`` of v0.9 and v0.10."""
    kind = section.choice("attestation_token_type", {"CoCo": None, "Jwk": None})
    places = section.texts("trusted_certs_paths")
    section.end()
    return {"trusted_jwk_sets" if kind == "Jwk" else "trusted_certs": places}


def _either(section: Table, name: str, older: str) -> bool | None:
    newer, former = section.flag(name), section.flag(older)
    return former if newer is None else newer


def _tokens(section: Table) -> Flat:
    """Read what tokens are like: a table of their kind, or once a kind and a table beside it."""
    if section.holds_text("attestation_token_broker"):
        _kind(section, "attestation_token_broker")
        return _broker(section.table("attestation_token_config"))
    older = section.table("attestation_token_config")
    minutes = older.number("duration_min")
    _kind(older, "attestation_token_type")
    older.end()
    flat = _broker(section.table("attestation_token_broker"))
    if flat["token_minutes"] is None:
        flat["token_minutes"] = minutes
    return flat


def _kind(table: Table, key: str) -> None:
    if table.choice(key, {"Ear": None, "Simple": None, "CoCo": None}) == "Simple":
        table.notes.append(f"{table.name(key)}: {_EAR}")


def _broker(section: Table) -> Flat:
    _kind(section, "type")
    flat: Flat = {
        "token_minutes": section.number("duration_min"),
        "token_issuer": section.text("issuer_name"),
        "token_developer": section.text("developer_name"),
        "token_build": section.text("build_name"),
        "token_profile": section.text("profile_name"),
        "verbose_token": section.flag("verbose_token"),
    }
    signer = section.table("signer")
    flat |= {
        "token_key": signer.text("key_path"),
        "token_certificate": signer.text("cert_path"),
        "token_certificate_url": signer.text("cert_url"),
    }
    signer.end()
    section.without_effect(_IN_STORAGE, "policy_dir")
    section.end()
    return flat


def _rvps(section: Table) -> Flat:
    section.choice("type", {"BuiltIn": None, "GrpcRemote": "reference values are in this KBS"})
    section.refuse("reference values are in this KBS", "address", "remote_addr", unless=("",))
    section.without_effect(_IN_STORAGE, "store_type", "store_config", "storage")
    extractors = section.table("extractors")
    extractors.refuse(_VALUES, "swid_extractor", "corim_extractor")
    flat: Flat = {"sample_extractor": extractors.flag("sample_extractor")}
    extractors.end()
    section.end()
    return flat


def _verifiers(section: Table) -> None:
    section.refuse(
        "TPMs are believed by who certified them (--tpm-ek-ca)", "tpm_verifier", unless=({},)
    )
    # What Trustee fetches with these comes with the evidence here, or evidence fails.
    snp = section.table("snp_verifier")
    snp.without_effect(_VERIFIER, "vcek_sources")
    dcap = section.table("dcap_verifier")
    dcap.without_effect(_VERIFIER, "collateral_service", "use_secure_cert")
    dcap.choice("tcb_update_type", {"standard": None, "early": "the standard one is asked for"})
    nvidia = section.table("nvidia_verifier")
    nvidia.without_effect(_VERIFIER, "type", "verifier_url")
    for table in (snp, dcap, nvidia, section):
        table.end()
