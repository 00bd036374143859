# SPDX-License-Identifier: Apache-2.0
"""cocos-cli evidence: exit codes and forms, on real evidence and on a processor in software."""

import json
from pathlib import Path
from typing import Any

import pytest
from _vectors import FOLDER, vector
from typer.testing import CliRunner

from cocos.cli.owner.command import app
from cocos.errors import UsageError

CHALLENGE = b"challenge".hex()


def run(*words: str) -> tuple[int, Any, str]:
    result = CliRunner().invoke(app, ["evidence", *words])
    try:
        shown = json.loads(result.stdout)
    except ValueError:
        shown = None
    return result.exit_code, shown, result.stderr


def real(name: str) -> str:
    vector(name)
    return str(FOLDER / name)


def test_real_evidence_holds() -> None:
    genoa = real("snp/genoa-v3-evidence.json")
    report = bytes(json.loads(vector("snp/genoa-v3-evidence.json"))["attestation_report"]["report_data"])  # fmt: skip
    code, claims, _ = run("verify", genoa, "--tee", "snp", "--report-data", report.hex())
    assert code == 0
    assert claims["measurement"].startswith("6a6519d757e68c2e")
    code, result, _ = run("verify", genoa, "--tee", "snp", "--no-report-data", "--json")
    assert (code, result["verified"], result["findings"]) == (0, True, [])
    assert result["claims"] == claims
    azure = real("azure/snp-vtpm-evidence-v1.json")
    code, claims, _ = run("verify", azure, "--tee", "az-snp-vtpm", "--report-data", CHALLENGE)
    assert code == 0
    assert claims["report_data"] == CHALLENGE


def test_what_does_not_hold_is_named() -> None:
    genoa = real("snp/genoa-v3-evidence.json")
    code, result, _ = run("verify", genoa, "--tee", "snp", "--report-data", "00" * 48, "--json")
    assert (code, result["verified"], result["claims"]) == (1, False, None)
    assert [finding["check"] for finding in result["findings"]] == ["snp.report_data"]
    code, _, said = run("verify", genoa, "--tee", "snp", "--no-report-data", "--at", "2033-01-01T00:00:00Z")  # fmt: skip
    assert code == 1
    assert "snp.chain" in said
    code, result, _ = run("verify", genoa, "--tee", "snp", "--no-report-data", "--init-data", "11" * 32, "--json")  # fmt: skip
    assert (code, [finding["check"] for finding in result["findings"]]) == (1, ["snp.host_data"])


def test_a_raw_report_and_its_certificate() -> None:
    words = (real("snp/milan-v2-report.bin"), "--tee", "snp", "--no-report-data", "--json")
    vcek = real("snp/milan-v2-vcek.der")
    code, result, _ = run("verify", *words, "--certificate", vcek)
    assert (code, result["findings"][0]["check"]) == (1, "snp.version")


def test_freshness_must_be_left_out_by_name(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_text("{}")
    for words in ((), ("--no-report-data", "--report-data", "00")):
        result = CliRunner().invoke(app, ["evidence", "verify", str(file), "--tee", "snp", *words])
        assert isinstance(result.exception, UsageError)


@pytest.mark.parametrize(
    "tee", ["snp", "tdx", "sgx", "tpm", "nvidia", "az-snp-vtpm", "az-tdx-vtpm"]
)
@pytest.mark.parametrize("data", [b"{}", b"[]", b"{", b"", b"\xff" * 1184, b"00" * 600])
def test_files_of_something_else(tee: str, data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "evidence"
    file.write_bytes(data)
    code, result, _ = run("verify", str(file), "--tee", tee, "--no-report-data", "--json")
    assert code == 1
    assert result["findings"]


def test_evidence_that_proves_nothing_is_not_verified(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_text('{"svn": "1", "report_data": ""}')
    assert run("verify", str(file), "--tee", "sample", "--no-report-data", "--json")[0] == 1


def test_fields_are_shown_and_not_judged() -> None:
    code, rows, _ = run("show", real("snp/milan-v2-report.bin"), "--tee", "snp", "--json")
    assert code == 0
    assert rows["report.version"] == "2"
    assert rows["report.measurement"].startswith("a1f3930413247bb3")
    code, rows, _ = run("show", real("azure/snp-vtpm-evidence-v1.json"), "--tee", "az-snp-vtpm", "--json")  # fmt: skip
    assert rows["quote.extra_data"] == CHALLENGE
    code, rows, _ = run("show", real("tdx/quote-v4.bin"), "--tee", "tdx", "--json")
    assert (code, rows["header.version"]) == (0, "0400")


def test_a_value_is_shown_on_its_line(tmp_path: Path) -> None:
    """Who made evidence could else write fields into it that its layout says otherwise."""
    file = tmp_path / "evidence.json"
    forged = "1\nreport_data  00"
    file.write_text(json.dumps({"svn": forged, f"x{forged}": "\x1b[2J"}))
    shown = CliRunner().invoke(app, ["evidence", "show", str(file), "--tee", "sample"]).stdout
    assert len(shown.splitlines()) == 2
    assert "\x1b" not in shown
    file.write_text(json.dumps({"device_evidence_list": [dict.fromkeys(("arch", "uuid", "evidence", "certificate"), "\nnvidia.fake: no")]}))  # fmt: skip
    said = CliRunner().invoke(app, ["evidence", "verify", str(file), "--tee", "nvidia", "--no-report-data"]).stderr  # fmt: skip
    assert "nvidia.fake" in said
    assert not [line for line in said.splitlines() if line.startswith("nvidia.fake")]
