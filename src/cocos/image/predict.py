# SPDX-License-Identifier: Apache-2.0
"""Reference values of an image, each with what it was computed from."""

import hashlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from cocos._types import JsonObject
from cocos.host.machines.qemu import SNP_CPU, SNP_POLICY
from cocos.image import measure, snp, spec, tdx
from cocos.image.measure import RTMR_PCRS, Event
from cocos.wire.image_folder import FIRMWARE, UKI, Memory
from cocos.wire.pe import Image

_PCRS = (4, 9, 11, 12, 13)  # what the default policy knows an image by


def reference_values(folder: Path, *, cpus: int, firmware: dict[str, str]) -> JsonObject:
    """Return the reference values of an image, and what they were computed from.

    Names are those that the policies look up; ``…_events`` let a verifier name the first
    event that differs.

    Args:
        folder: Holds the kernel image, and the firmware if there is any.
        cpus: Most processors of a VM with SEV-SNP.
        firmware: Package → version of the firmware; empty if there is none.
    """
    uki = (folder / UKI).read_bytes()
    image = Image.parse(uki)
    values: JsonObject = {}
    events = measure.boot(image)
    for number in _PCRS:
        own = [event for event in events if event.pcr == number]
        values |= _register(f"tpm_pcr{number:02}", own, "sha256")
    inputs: JsonObject = {"uki": {"file": UKI, "sha256": hashlib.sha256(uki).hexdigest()}}
    inputs["tpm"] = {
        "values": [f"tpm_pcr{number:02}" for number in _PCRS],
        "firmware": "OVMF as Debian builds it, given the image by QEMU's -kernel",
        "checked": "against a boot in an emulated VM",
    }
    if firmware:
        values |= _snp(folder, cpus)
        values |= _tdx(folder, image)
        inputs["snp"] = _snp_inputs(folder, cpus, firmware)
        inputs["tdx"] = _tdx_inputs(folder, firmware)
    return {**values, "inputs": inputs}


def _snp(folder: Path, cpus: int) -> JsonObject:
    digests = snp.launch_digests(folder / FIRMWARE["snp"], folder / UKI, cpus)
    return {"snp_launch_measurement": [digest.hex() for digest in digests]}


def _snp_inputs(folder: Path, cpus: int, firmware: dict[str, str]) -> JsonObject:
    return {
        "values": ["snp_launch_measurement"],
        "firmware": _file(folder, "snp", firmware),
        "kernel": UKI,
        "initrd": None,
        "command line": "",
        "processors": f"1 to {cpus}, in this order",
        "cpus": cpus,
        "processor": SNP_CPU,
        "processor signature": f"{snp.CPU_SIGNATURE:#x}",
        "guest features": f"{snp.GUEST_FEATURES:#x}",
        "guest policy": f"{SNP_POLICY:#x}",
        "computed by": f"sev-snp-measure {metadata.version('sev-snp-measure')}",
        "checked": "not on hardware; the firmware, emulated, starts this kernel and no other",
    }


def _tdx(folder: Path, image: Image) -> JsonObject:
    events = measure.boot(image, "sha384")
    values: JsonObject = {"mr_td": [tdx.mrtd(folder / FIRMWARE["tdx"]).hex()]}
    for number, pcrs in RTMR_PCRS.items():
        own = [event for event in events if event.pcr in pcrs]
        values |= _register(f"rtmr_{number}", own, "sha384")
    application = next(event for event in events if event.event.endswith("File(kernel)"))
    options = next(event for event in events if event.event.endswith("LoadOptions"))
    values["tdvfkernel"] = [application.digest.hex()]
    values["tdvfkernelparams"] = [options.digest.hex()]
    return values


def _tdx_inputs(folder: Path, firmware: dict[str, str]) -> JsonObject:
    return {
        "values": ["mr_td", "rtmr_1", "rtmr_2", "tdvfkernel", "tdvfkernelparams"],
        "firmware": _file(folder, "tdx", firmware),
        "kernel": UKI,
        "not predicted": {
            "rtmr_0": "memory map, ACPI tables and boot variables, which QEMU makes",
            "rtmr_3": "computations, known per VM only",
            "xfam": "features of the host's processor",
        },
        "checked": "not on hardware; the same events in an emulated VM with a TPM",
    }


def _file(folder: Path, memory: Memory, versions: dict[str, str]) -> JsonObject:
    name, (package, _) = FIRMWARE[memory], spec.FIRMWARE[memory]
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return {"file": name, "sha256": digest, "package": f"{package} {versions[package]}"}


def _register(name: str, events: Sequence[Event], algorithm: str) -> JsonObject:
    listed = [{"event": each.event, "digest": each.digest.hex()} for each in events]
    value = measure.register(events, algorithm).hex()
    return {name: [value], f"{name}_events": [listed]}
