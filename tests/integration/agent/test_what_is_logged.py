# SPDX-License-Identifier: Apache-2.0
"""What a program prints is its owner's: it goes to the CVMS, never into the agent's own log.

The agent's log is the VM's console, which the host reads.
"""

import json
from pathlib import Path

import pytest
from _agent import bed
from _images import algorithm
from structlog.testing import capture_logs

from cocos.host.images.skopeo import Skopeo

pytestmark = pytest.mark.integration

PRINTED = "patient 4711 has it"


@pytest.mark.parametrize("ending", ["exit 3", "exit 0"])
async def test_no_line_of_a_program_is_in_the_agents_log(
    tool: Skopeo, tmp_path: Path, ending: str
) -> None:
    script = f"echo '{PRINTED}'; echo '{PRINTED}' >&2; {ending}"
    algorithm(tmp_path / "algo", script, env=("PATH=/bin",))
    document = {
        "computation_id": "c-1",
        "algorithm": {"uri": f"oci:{tmp_path}/algo"},
        "datasets": [],
        "agent_config": {"log_level": "debug"},
    }
    (tmp_path / "bed").mkdir()
    async with bed(tmp_path / "bed", tool) as place:
        with capture_logs() as logged:
            memory = await place.run(json.dumps(document).encode())
    assert PRINTED in {message for _, message in memory.logs}
    assert any(each["event"] == "computation.state" for each in logged)
    assert PRINTED not in str(logged)
    if ending == "exit 3":
        assert PRINTED in str(memory.failure["tail"])
        (failed,) = [each for each in logged if each["event"] == "computation.failed"]
        assert failed["exit_code"] == 3
        assert "tail" not in failed
