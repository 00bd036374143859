# SPDX-License-Identifier: Apache-2.0
"""What a host offers, by facts that are laid before the judge."""

from pathlib import Path

import pytest

from cocos.host.machines.confidential import HostFacts, judge, read_facts
from cocos.wire.image_folder import Memory

pytestmark = pytest.mark.integration

SNP = HostFacts(frozenset({"fpu", "sev_snp"}), frozenset({"snp"}), (9, 1))
TDX = HostFacts(frozenset({"fpu", "tdx_host_platform"}), frozenset({"tdx"}), (10, 1))


@pytest.mark.parametrize(("facts", "kind"), [(SNP, "snp"), (TDX, "tdx")])
def test_a_host_that_can(facts: HostFacts, kind: Memory) -> None:
    assert judge(facts).kind == kind


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (HostFacts(SNP.cpu_flags, SNP.modules, (9, 0)), "QEMU 9.0 is older than 9.1"),
        (HostFacts(TDX.cpu_flags, TDX.modules, (9, 2)), "QEMU 9.2 is older than 10.1"),
        (HostFacts(SNP.cpu_flags, frozenset(), (9, 1)), "neither"),
        (HostFacts(frozenset(), SNP.modules, (9, 1)), "neither"),
        (HostFacts(TDX.cpu_flags, SNP.modules, (10, 1)), "neither"),
    ],
)
def test_a_host_that_cannot_says_why(facts: HostFacts, reason: str) -> None:
    verdict = judge(facts)
    assert verdict.kind is None
    assert reason in verdict.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(
        "processor\t: 0\nflags\t\t: fpu sev_snp\nbugs\t\t:\n"
    )
    for module, text in (
        ("kvm_amd/parameters/sev_snp", "Y\n"),
        ("kvm_intel/parameters/tdx", "N\n"),
    ):
        path = tmp_path / "sys" / "module" / module
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def _qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho 'QEMU emulator version 9.2.1 (Debian)'\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")


@pytest.mark.usefixtures("_qemu")
async def test_facts_are_read_where_the_kernel_shows_them(root: Path) -> None:
    facts = await read_facts(root)
    assert facts == HostFacts(frozenset({"fpu", "sev_snp"}), frozenset({"snp"}), (9, 2))


@pytest.mark.usefixtures("_qemu")
async def test_a_host_that_shows_nothing(tmp_path: Path) -> None:
    assert judge(await read_facts(tmp_path / "nowhere")).kind is None
