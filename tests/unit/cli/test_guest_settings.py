# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from cocos.cli import _guest as guest
from cocos.cli._log_level import level_of_logs


@pytest.mark.parametrize(
    ("flag", "rust_log", "configured", "level"),
    [
        (None, "", "info", "info"),
        (None, "", "trace", "debug"),
        (None, "warn", "info", "warning"),
        (None, "attestation_agent=debug,OFF", "info", "critical"),
        (None, "attestation_agent=debug", "warn", "warning"),
        ("error", "debug", "info", "error"),
        (None, "nonsense", "nonsense", "nonsense"),
    ],
)
def test_levels_of_logs(
    monkeypatch: pytest.MonkeyPatch,
    flag: str | None,
    rust_log: str,
    configured: str,
    level: str,
) -> None:
    monkeypatch.setenv("RUST_LOG", rust_log)
    assert level_of_logs(flag, configured) == level


def test_the_variable_wins_over_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AA_KBC_PARAMS", raising=False)
    monkeypatch.setattr(guest, "COMMAND_LINE", tmp_path / "cmdline")
    assert guest.aa_kbc_params() is None
    (tmp_path / "cmdline").write_text("quiet agent.aa_kbc_params=cc_kbc::http://a x=1\n")
    assert guest.aa_kbc_params() == "cc_kbc::http://a"
    monkeypatch.setenv("AA_KBC_PARAMS", "cc_kbc::http://b")
    assert guest.aa_kbc_params() == "cc_kbc::http://b"
