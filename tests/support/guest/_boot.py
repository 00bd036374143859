# SPDX-License-Identifier: Apache-2.0
"""A boot as firmware, systemd-stub and the attestation agent measure it."""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

from _tpm import EV_EFI_ACTION, EV_EFI_APPLICATION, EV_SEPARATOR, Logged, Tpm, runtime, section

from cocos.evidence import eventlog
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.event import ComputationEvent

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
    *,
    algorithm: str = ALGORITHM,
    dataset: str = DATASET,
    key: str = "default/key/algo",
    args: Sequence[str] = (),
    filename: str = "",
    **more: Any,
) -> dict[str, Any]:
    """A manifest in the form of the guide."""
    return {
        "computation_id": "1",
        "algorithm": {
            "uri": "docker://localhost:5000/algo:v1",
            "encrypted": True,
            "kbs_resource_path": key,
            "hash": algorithm,
            "args": args,
        },
        "datasets": [
            {
                "uri": "docker://localhost:5000/data:v1",
                "encrypted": True,
                "kbs_resource_path": "default/key/data",
                "hash": dataset,
                "filename": filename,
            }
        ],
        "kbs_url": "",
        **more,
    }


def measured(
    computation: Computation,
    algorithm: str = ALGORITHM,
    dataset: str = DATASET,
    consumers: Sequence[bytes] | None = None,
) -> ComputationEvent:
    """What the agent measures before it runs a computation.

    Args:
        computation: The manifest.
        algorithm: What the algorithm resolves to where the manifest does not pin it.
        dataset: What such a dataset resolves to.
        consumers: Who gets the result; by default those of the manifest.
    """
    return computation.event(
        computation.algorithm.hash.hex() or algorithm,
        [each.hash.hex() or dataset for each in computation.datasets],
        computation.result_consumers if consumers is None else consumers,
    )


def event_of(computation: Computation) -> Logged:
    """The event in the log of a machine that runs it."""
    return runtime(*measured(computation).measured())


async def start(tpm: Tpm, *events: Logged, init_data: str | None = INIT_DATA) -> None:
    """Boot, and bind the init data."""
    await tpm.measure(*(events or boot()))
    if init_data is not None:
        await tpm.extend(8, hashlib.sha256(init_data.encode()).digest())
