# SPDX-License-Identifier: Apache-2.0
"""What an SNP report has to be, whoever carries it, and what it claims.

1. its version is 3, 4 or 5, and its processor is known;
2. its key: chain to the pinned ARK, dates, kind, revocation;
3. its signature;
4. firmware and chip are those of the certificate;
5. it was asked for by VMPL 0.
"""

import datetime as dt
import hmac
from collections.abc import Mapping

from cocos._types import JsonObject
from cocos.errors import Finding, FormatError
from cocos.evidence.snp import HOST_DATA_BYTES, Platform, Policy, Report
from cocos.verifiers.amd import endorsement
from cocos.verifiers.amd.authorities import Authorities
from cocos.verifiers.amd.endorsement import Endorsement, refused
from cocos.verifiers.collateral import Collateral

VERSIONS = (3, 4, 5)


def parse(data: bytes) -> Report:
    """Parse a report, and check step 1.

    Raises:
        EvidenceError: it is none, or none that can be verified.
    """
    try:
        report = Report.parse(data)
    except FormatError as error:
        raise refused([Finding("snp.evidence", error.message)]) from error
    if report.version not in VERSIONS:
        problem = "reports of this version are not accepted"
        wanted = ", ".join(map(str, VERSIONS))
        raise refused([Finding("snp.version", problem, str(report.version), wanted)])
    if report.product is None:
        actual = " ".join(f"{number:#x}" for number in report.cpuid or ())
        raise refused([Finding("snp.processor", "the processor is not known", actual)])
    return report


def authenticate(
    report: Report,
    provided: Mapping[str, bytes],
    trusted: Authorities,
    collateral: Collateral,
    now: dt.datetime,
) -> Endorsement:
    """Check steps 2 and 3, and return the key.

    Raises:
        EvidenceError: one does not hold.
    """
    found = endorsement.endorse(report, provided, trusted, collateral, now)
    if findings := endorsement.signature_findings(report, found.key):
        raise refused(findings)
    return found


def findings(report: Report, found: Endorsement) -> list[Finding]:
    """Check steps 4 and 5."""
    all_found = endorsement.platform_findings(report, found)
    if report.vmpl != 0:
        problem = "the report was not asked for at the highest privilege"
        all_found.append(Finding("snp.vmpl", problem, str(report.vmpl), "0"))
    return all_found


def init_data_findings(report: Report, init_data: bytes | None) -> list[Finding]:
    """Check that the host started the guest with this digest of init data."""
    if init_data is None:
        return []
    if len(init_data) < HOST_DATA_BYTES:
        problem = "HOST_DATA takes init data whose hash has 32 bytes or more"
        return [Finding("init_data.algorithm", problem, f"{len(init_data)} bytes", "sha256")]
    wanted = init_data[:HOST_DATA_BYTES]
    if hmac.compare_digest(report.host_data, wanted):
        return []
    problem = "the init data shown is not what the guest was started with"
    return [Finding("snp.host_data", problem, report.host_data.hex(), wanted.hex())]


def claims(report: Report, found: Endorsement) -> JsonObject:
    """Return the claims: the first 16 as Trustee names them, then ours."""
    policy, tcb = report.policy, report.reported_tcb
    claimed: JsonObject = {
        "policy_abi_major": policy >> 8 & 0xFF,
        "policy_abi_minor": policy & 0xFF,
        "policy_smt_allowed": bool(policy & Policy.SMT),
        "policy_migrate_ma": bool(policy & Policy.MIGRATE_MA),
        "policy_debug_allowed": bool(policy & Policy.DEBUG),
        "policy_single_socket": bool(policy & Policy.SINGLE_SOCKET),
        "reported_tcb_bootloader": tcb.bootloader,
        "reported_tcb_tee": tcb.tee,
        "reported_tcb_snp": tcb.snp,
        "reported_tcb_microcode": tcb.microcode,
        "platform_tsme_enabled": bool(report.platform & Platform.TSME),
        "platform_smt_enabled": bool(report.platform & Platform.SMT),
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "init_data": report.host_data.hex(),
        "chip_id": report.chip_id.hex(),
        "report_version": report.version,
        "product": str(report.product),
        "guest_svn": report.guest_svn,
        "vmpl": report.vmpl,
        "signing_key": found.kind.name.lower(),
        "revocation": found.revocation,
        "authority_insecure": found.insecure is not None,
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "report_id": report.report_id.hex(),
    }
    if tcb.fmc is not None:
        claimed["reported_tcb_fmc"] = tcb.fmc
    return claimed
