# SPDX-License-Identifier: Apache-2.0
import hashlib
from pathlib import Path

import pytest

from cocos.cli._log_level import level_of_logs
from cocos.cli.guest import _settings as guest
from cocos.errors import FormatError


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


def test_the_variable_and_the_command_line_say_the_same_or_nothing_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AA_KBC_PARAMS", raising=False)
    monkeypatch.setattr(guest, "COMMAND_LINE", tmp_path / "cmdline")
    assert guest.aa_kbc_params() is None
    (tmp_path / "cmdline").write_text("quiet agent.aa_kbc_params=cc_kbc::http://a x=1\n")
    assert guest.aa_kbc_params() == "cc_kbc::http://a"
    monkeypatch.setenv("AA_KBC_PARAMS", "cc_kbc::http://a")
    assert guest.aa_kbc_params() == "cc_kbc::http://a"
    monkeypatch.setenv("AA_KBC_PARAMS", "cc_kbc::http://b")
    with pytest.raises(FormatError, match="different"):
        guest.aa_kbc_params()
    (tmp_path / "cmdline").write_text("quiet\n")
    assert guest.aa_kbc_params() == "cc_kbc::http://b"
    twice = [f"agent.aa_kbc_params=cc_kbc::http://{each}" for each in "ab"]
    (tmp_path / "cmdline").write_text(" ".join(twice))
    with pytest.raises(FormatError, match="twice"):
        guest.aa_kbc_params()


def test_init_data_in_both_forms(tmp_path: Path) -> None:
    file = tmp_path / "init-data"
    texts = {
        "toml": b'version = "0.1.0"\nalgorithm = "sha384"\n[data]\na = "b"\n',
        "json": b'{"version": "0.1.0", "algorithm": "sha384", "data": {"a": "b"}}',
    }
    for form, text in texts.items():
        file.write_bytes(text + bytes(512 - len(text)))  # as a disk has it
        init_data, digest = guest.read_init_data(file)
        assert (init_data.format, init_data.body.encode()) == (form, text)
        assert digest == hashlib.sha384(text).digest()
    file.write_bytes(b"{}")
    with pytest.raises(FormatError):
        guest.read_init_data(file)
