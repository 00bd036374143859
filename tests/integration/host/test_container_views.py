# SPDX-License-Identifier: Apache-2.0
"""What a program in a real container sees of the kernel, and what a crash leaves."""

from pathlib import Path

import pytest
from _images import algorithm

from cocos.host.containers.container import Container
from cocos.host.containers.runtime import Runtime

pytestmark = pytest.mark.integration

SCRIPT = """
for path in interrupts kcore keys timer_list sched_debug; do
    if [ -e /proc/$path ]; then
        echo "$path $(head -c 1 /proc/$path 2>/dev/null | wc -c)"
    fi
done
for path in acpi scsi asound; do
    [ ! -d /proc/$path ] || echo "$path $(ls /proc/$path | wc -l)"
done
echo x 2>/dev/null >/proc/sys/kernel/core_pattern || echo "no pattern"
echo "core $(ulimit -Hc)"
"""


async def test_nothing_of_the_kernel_is_read_and_no_core_is_written(tmp_path: Path) -> None:
    tools = Runtime.find(tmp_path / "state", insecure_without_cgroups=True)
    algorithm(tmp_path / "image", SCRIPT)
    await tools.unpack(tmp_path / "image", "latest", tmp_path / "rootfs")
    container = Container(
        "test-views", tmp_path / "rootfs", ("/bin/busybox", "sh", "/run.sh"), env=("PATH=/bin",)
    )
    (tmp_path / "logs").mkdir()
    assert (await tools.run(container, tmp_path / "logs")).exit_status == 0
    lines = (tmp_path / "logs" / "stdout.log").read_text().splitlines()
    assert lines[-2:] == ["no pattern", "core 0"]
    seen = dict(line.split() for line in lines[:-2])
    # On every kernel there are these two, and they are not empty outside.
    assert {"interrupts", "keys"} <= seen.keys()
    assert set(seen.values()) == {"0"}
