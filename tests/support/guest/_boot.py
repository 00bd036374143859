# SPDX-License-Identifier: Apache-2.0
"""A boot as firmware, systemd-stub and the attestation agent measure it."""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

from _tpm import EV_EFI_ACTION, EV_EFI_APPLICATION, EV_SEPARATOR, Logged, Tpm, runtime, section

from cocos.evidence import eventlog
from cocos.wire.manifest.computation import Computation

CMDLINE = "root=/dev/mapper/root ro roothash=0123"
INIT_DATA = """version = "0.1.0"
algorithm = "sha256"
[data]
"aa.toml" = 'url = "http://10.0.2.2:8080"'
"""
ALGORITHM, DATASET = hashlib.sha256(b"algorithm").hexdigest(), hashlib.sha256(b"data").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def boot(
    cmdline: str = CMDLINE, *, kernel: bytes = b"kernel", application: bytes = b"uki"
) -> list[Logged]:
    """Events of a machine that starts a unified kernel image."""
    image = struct.pack("<QQQQ", 0, 0, 0, 0)
    return [
        *(Logged(pcr, EV_SEPARATOR, bytes(4)) for pcr in range(8)),
        Logged(4, EV_EFI_ACTION, b"Calling EFI Application from Boot Option"),
        Logged(4, EV_EFI_APPLICATION, image, hashlib.sha256(application).digest()),
        *section(".linux", kernel),
        *section(".osrel", b"ID=cocos"),
        *section(".cmdline", cmdline.encode()),
        *section(".initrd", b"initrd"),
    ]


def reference_values(events: Sequence[Logged], *pcrs: int) -> dict[str, Any]:
    """What image build predicts for these events."""
    parsed = eventlog.parse_records(b"".join(event.record for event in events))
    values: dict[str, Any] = {}
    for pcr in pcrs or (4, 11, 12):
        own = [event for event in parsed if event.index == pcr]
        values[f"tpm_pcr{pcr:02}"] = [eventlog.replay(own, pcr).hex()]
        listed = [{"digest": e.digests["sha256"].hex(), "event": e.type_name} for e in own]
        values[f"tpm_pcr{pcr:02}_events"] = [listed]
    return values


def manifest(
    *, algorithm: str = ALGORITHM, dataset: str = DATASET, key: str = "default/key/algo"
) -> dict[str, Any]:
    """A manifest in the form of the guide."""
    return {
        "computation_id": "1",
        "algorithm": {
            "uri": "docker://localhost:5000/algo:v1",
            "encrypted": True,
            "kbs_resource_path": key,
            "hash": algorithm,
        },
        "datasets": [
            {
                "uri": "docker://localhost:5000/data:v1",
                "encrypted": True,
                "kbs_resource_path": "default/key/data",
                "hash": dataset,
            }
        ],
        "kbs_url": "",
    }


def event_of(computation: Computation) -> Logged:
    """What the agent measures before it runs a computation."""
    return runtime(*computation.event())


async def start(tpm: Tpm, *events: Logged, init_data: str | None = INIT_DATA) -> None:
    """Boot, and bind the init data."""
    await tpm.measure(*(events or boot()))
    if init_data is not None:
        await tpm.extend(8, hashlib.sha256(init_data.encode()).digest())
