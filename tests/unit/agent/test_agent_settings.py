# SPDX-License-Identifier: Apache-2.0
"""Settings of the agent."""

from pathlib import Path

import pytest

from cocos.agent.config import AgentSettings


@pytest.mark.parametrize(
    "name",
    ["keyprovider_config", "registries", "authfile", "extra_root_certificates", "work_folder"],
)
def test_paths_hold_in_every_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle of runc lies elsewhere: its root filesystem was not found there."""
    monkeypatch.chdir(tmp_path)
    settings = AgentSettings.model_validate({name: "work"})
    assert getattr(settings, name) == tmp_path / "work"
