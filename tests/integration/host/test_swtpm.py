# SPDX-License-Identifier: Apache-2.0
"""Real software TPMs: whose keys a CA of this host has certified."""

import asyncio
import datetime as dt
import stat
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos.errors import ConfigError
from cocos.host.daemon import kill_marked
from cocos.host.machines import swtpm
from cocos.host.machines.swtpm import TpmCa

pytestmark = pytest.mark.integration

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
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
