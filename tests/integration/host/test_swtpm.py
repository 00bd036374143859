# SPDX-License-Identifier: Apache-2.0
"""Real software TPMs: whose keys a CA of this host has certified."""

import asyncio
import datetime as dt
import os
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos.errors import ConfigError
from cocos.host import process
from cocos.host.containers import sandbox
from cocos.host.containers.sandbox import View
from cocos.host.daemon import kill_marked
from cocos.host.machines import swtpm
from cocos.host.machines.swtpm import TpmCa
from cocos.manager.backends import local
from cocos.manager.plan import CreateRequest, make_plan

pytestmark = pytest.mark.integration

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
NOBODY = 65534
MADE_BY = {
    "manufacturer": "id:00001014",
    "model": "swtpm",
    "version": "id:20191023",
    "spec-family": "2.0",
    "spec-level": "0",
    "spec-revision": "164",
}
EK_CERTIFICATE = x509.ObjectIdentifier(
    "2.23.133.8.1"
)  # TCG EK credential profile, tcg-kp-EKCertificate


@pytest.fixture
def ca(tmp_path: Path) -> TpmCa:
    made = TpmCa(tmp_path / "ca")
    made.make(NOW)
    return made


@pytest.fixture
def name() -> Iterator[str]:
    mark = f"test-{uuid.uuid4()}"
    yield mark
    kill_marked(mark)


async def manufactured(folder: Path, name: str, ca: TpmCa) -> x509.Certificate:
    folder.mkdir()  # noqa: ASYNC240 - a moment
    await swtpm.manufacture(folder, name, ca)
    return x509.load_der_x509_certificate((folder / "ek-rsa2048.crt").read_bytes())


def key_lines(ca: TpmCa) -> list[bytes]:
    """Lines of the CA's private key, by which it is known wherever it is."""
    lines = (ca.certificate_file.parent / "key.pem").read_bytes().splitlines()[1:-1]
    assert len(lines[0]) == 64
    return lines


def root(ca: TpmCa) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca.certificate_file.read_bytes())


async def test_the_endorsement_key_is_certified_by_our_ca(
    tmp_path: Path, name: str, ca: TpmCa
) -> None:
    certificate = await manufactured(tmp_path / "tpm", name, ca)
    certificate.verify_directly_issued_by(root(ca))
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert EK_CERTIFICATE in usages
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = root(ca).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == own.digest


async def test_two_tpms_at_once_are_two(tmp_path: Path, name: str, ca: TpmCa) -> None:
    first, second = await asyncio.gather(
        manufactured(tmp_path / "a", name, ca), manufactured(tmp_path / "b", name, ca)
    )
    assert first.serial_number != second.serial_number
    assert first.public_key() != second.public_key()
    first.verify_directly_issued_by(root(ca))
    second.verify_directly_issued_by(root(ca))


async def test_another_hosts_ca_has_not_certified_it(tmp_path: Path, name: str, ca: TpmCa) -> None:
    other = TpmCa(tmp_path / "other")
    other.make(NOW)
    assert root(other).subject != root(ca).subject
    certificate = await manufactured(tmp_path / "tpm", name, ca)
    with pytest.raises(ValueError, match="subject"):
        certificate.verify_directly_issued_by(root(other))


def test_the_ca_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "ca"
    TpmCa(folder).make(NOW)
    pem = TpmCa(folder).certificate_file.read_bytes()
    TpmCa(folder).make(NOW + dt.timedelta(days=1))
    assert TpmCa(folder).certificate_file.read_bytes() == pem
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate(pem)
    certificate.verify_directly_issued_by(certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="TPM CA"):
        TpmCa(tmp_path / "file").make(NOW)


# --- the CA's key is the manager's alone -------------------------------------------------


@pytest.mark.parametrize("name", ["ca", "ca/key.pem"])
@pytest.mark.parametrize("mode", [0o740, 0o704, 0o720, 0o702, 0o777])
def test_a_ca_that_others_reached_is_not_used(
    tmp_path: Path, ca: TpmCa, name: str, mode: int
) -> None:
    (tmp_path / name).chmod(mode)
    with pytest.raises(ConfigError, match="not for this user alone") as caught:
        ca.make(NOW)
    assert "made anew" in (caught.value.hint or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["ca", "ca/key.pem"])
def test_a_ca_of_somebody_elses_is_not_used(tmp_path: Path, ca: TpmCa, name: str) -> None:
    os.chown(tmp_path / name, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="not for this user alone"):
        ca.make(NOW)


def test_a_folder_that_was_put_there_gets_no_key(tmp_path: Path) -> None:
    """By whoever may write beside it: as a link, or open for all."""
    (tmp_path / "theirs").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("link", "open"):
        with pytest.raises(ConfigError, match="not for this user alone"):
            TpmCa(tmp_path / name).make(NOW)
        assert list((tmp_path / name).iterdir()) == []


def test_a_key_that_is_a_link_is_not_used(tmp_path: Path, ca: TpmCa) -> None:
    key = tmp_path / "ca" / "key.pem"
    key.rename(tmp_path / "elsewhere")
    key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="not for this user alone"):
        ca.make(NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_can_have_nothing_signed(name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)  # everybody may pass, as through /var/lib
        ca = TpmCa(folder / "ca")
        ca.make(NOW)
        asyncio.run(manufactured(folder / "tpm", name, ca))
        for file in ("setup.conf", "localca.conf", "localca.options"):
            shutil.copy(folder / "tpm" / file, folder / file)
            (folder / file).chmod(0o644)

        def tried(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                words, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
            )

        assert tried("/bin/cat", folder / "localca.conf").returncode == 0
        for file in ("key.pem", "ca.pem", "serial"):
            assert tried("/bin/cat", folder / "ca" / file).returncode != 0
        own = folder / "own"
        own.mkdir()
        sign: list[str | Path] = [swtpm.Tools.find().localca, "--type", "ek", "--tpm2"]
        sign += ["--dir", own, "--vmid", "mine", "--ek", "ab" * 256]
        for what, value in MADE_BY.items():
            sign += [f"--tpm-{what}", value]
        sign += ["--configfile", folder / "localca.conf"]
        sign += ["--optsfile", folder / "localca.options"]
        subprocess.run(sign, check=True, capture_output=True)
        (own / "ek.cert").unlink()
        os.chown(own, NOBODY, NOBODY)
        assert tried(*sign).returncode != 0
        assert list(own.iterdir()) == []


async def test_a_running_tpm_has_nothing_of_the_ca(tmp_path: Path, name: str, ca: TpmCa) -> None:
    """No key in its folder, no path to it in its words, no file of it open."""
    folder = tmp_path / "tpm"
    await manufactured(folder, name, ca)
    daemon, control = swtpm.start(folder, name)
    try:
        running = Path(f"/proc/{daemon.pid}")
        told = (running / "cmdline").read_bytes() + (running / "environ").read_bytes()
        opened = [str(each.readlink()) for each in (running / "fd").iterdir()]
    finally:
        control.close()
        daemon.signal(signal.SIGKILL)
        await daemon.wait()
        daemon.close()
    assert str(folder).encode() in told
    assert str(tmp_path / "ca").encode() not in told
    assert any("swtpm.log" in each for each in opened)
    assert not [each for each in opened if each.startswith(str(tmp_path / "ca"))]
    files = [each for each in folder.rglob("*") if each.is_file()]
    assert files
    for each in files:
        assert not [line for line in key_lines(ca) if line in each.read_bytes()], each


PLAN = make_plan(CreateRequest("127.0.0.1:1"))


async def test_programs_of_the_local_backend_do_not_see_the_ca(tmp_path: Path, ca: TpmCa) -> None:
    """The other backend of the same manager, whose VMs are processes of this machine."""
    line = key_lines(ca)[0].decode()
    vm = tmp_path / "vms" / "id" / "vm"
    for folder in ("run", "etc", "work"):
        (vm / folder).mkdir(parents=True)
    (vm / "run" / "mine").write_text("this is in its own folder")
    places = ["/run", "/cocos", "/etc", "/tmp", "/var", "/root", "/home", str(tmp_path)]

    async def found(view: View, text: str) -> bytes:
        words = ["/bin/grep", "-rsF", text, *places]
        done = await process.run(sandbox.command(view, words), check=False, timeout=60)
        return done.stdout

    for program in local.programs("id", PLAN, vm):
        view = replace(program.view, workdir=Path("/"), cgroup=None)
        assert await found(view, "this is in its own folder")
        assert not await found(view, line)


async def test_paths_that_swtpm_setup_would_misread_are_refused(
    tmp_path: Path, name: str, ca: TpmCa
) -> None:
    with pytest.raises(ConfigError, match="cannot work with the path"):
        await manufactured(tmp_path / "with blank", name, ca)


async def test_it_answers_its_socket_and_is_found_by_its_file(
    tmp_path: Path, name: str, ca: TpmCa
) -> None:
    folder = tmp_path / "tpm"
    await manufactured(folder, name, ca)
    daemon, control = swtpm.start(folder, name)
    found = swtpm.find(folder)
    assert found is not None
    assert found.pid == daemon.pid
    control.sendall(struct.pack(">I", 1))  # CMD_GET_CAPABILITY of its control protocol
    control.settimeout(30)
    assert control.recv(100)[:4] == bytes(4)  # its result: success
    control.sendall(struct.pack(">I", 3))  # CMD_SHUTDOWN
    await asyncio.wait_for(daemon.wait(), 30)
    control.close()
    assert swtpm.find(folder) is None
    for each in (daemon, found):
        each.close()
