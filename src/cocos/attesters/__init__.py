# SPDX-License-Identifier: Apache-2.0
"""Attesters: one module per TEE, one table, one detection."""

import structlog

from cocos.attesters._base import (
    MAX_REPORT_DATA,
    AttestationKey,
    Attester,
    DeviceAttester,
    Devices,
    SignedQuote,
    TpmDevice,
)
from cocos.attesters._devices import SnpDevice, SnpReport, TdxDevice
from cocos.attesters.sample import InsecureSampleAttester
from cocos.attesters.sample_device import InsecureSampleDevice
from cocos.attesters.snp import SnpAttester
from cocos.attesters.tdx import TdxAttester
from cocos.attesters.tpm import TpmAttester
from cocos.errors import UnsupportedError

__all__ = [
    "ATTESTERS",
    "MAX_REPORT_DATA",
    "AttestationKey",
    "Attester",
    "DeviceAttester",
    "Devices",
    "InsecureSampleAttester",
    "SignedQuote",
    "SnpAttester",
    "SnpDevice",
    "SnpReport",
    "TdxAttester",
    "TdxDevice",
    "TpmAttester",
    "TpmDevice",
    "detect",
]

ATTESTERS: tuple[type[Attester], ...] = (
    TdxAttester,
    SnpAttester,
    TpmAttester,
    InsecureSampleAttester,
)
"""Every attester, in the order of detection.

Processors come before TPMs: the TPM of a confidential VM may be one that its host emulates.
Insecure ones come last."""

_log = structlog.get_logger(__name__)


async def detect(
    devices: Devices | None = None, *, insecure_sample: bool, sample_device: bool = False
) -> Attester:
    """Return the attester of this machine's TEE.

    A machine whose TEE we do not know is refused. It never becomes a sample by itself:
    its owner would believe in a proof that there is not.

    Args:
        devices: What this machine has for attesters to use.
        insecure_sample: Accept evidence that proves nothing when no TEE is found.
        sample_device: Claim a device beside the TEE, which proves nothing, either.

    Raises:
        UnsupportedError: no TEE was found, and sample evidence is not allowed.
    """
    for kind in ATTESTERS:
        if kind.insecure and not insecure_sample:
            continue
        attester = await kind.detect(devices or Devices())
        if attester is None:
            continue
        if kind.insecure:
            _log.warning(
                "attester.insecure",
                tee=attester.kind.value,
                problem="evidence of this machine proves nothing",
            )
        if sample_device:
            _log.warning(
                "attester.insecure",
                tee=InsecureSampleDevice.kind.value,
                problem="evidence of this device proves nothing",
            )
            attester.devices = (InsecureSampleDevice(),)
        return attester
    raise UnsupportedError(
        "this machine is in no trusted execution environment that we know",
        hint="for a trial, allow evidence that proves nothing with --insecure-sample "
        "(or COCOS_INSECURE_SAMPLE=1)",
    )
