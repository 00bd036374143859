# SPDX-License-Identifier: Apache-2.0
"""Software TPMs, each with an endorsement key that a CA of ours has certified.

What such a TPM proves is worth what its host is worth: whoever is root here can read its
keys. The certificate says that a TPM was made by this host and by nobody else, so that a
KBS which trusts this CA trusts this host. For that the CA's key is the manager's alone: no
other user's, in no VM's folder, and open in no process of a VM.
"""

import asyncio
import contextlib
import datetime as dt
import fcntl
import os
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cocos.errors import ConfigError
from cocos.evidence.endorsement import MANAGER_CA_POLICY
from cocos.host import process
from cocos.host.daemon import Daemon, environment
from cocos.host.disk import disk_error
from cocos.host.files import write_atomic

INSTALL_HINT = "sudo apt-get install swtpm swtpm-tools"
SETUP_SECONDS = 120.0  # it makes RSA keys
CA_YEARS = 20
PID_FILE = "swtpm.pid"

_PLAIN_PATH = re.compile(r"[A-Za-z0-9@%+:./_-]+")
_STATE = "state"
_LOG = "swtpm.log"


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs of the packages swtpm and swtpm-tools."""

    swtpm: Path
    setup: Path
    localca: Path

    @classmethod
    def find(cls) -> "Tools":
        """Find them.

        Raises:
            ToolMissingError: one is not installed.
        """
        names = ("swtpm", "swtpm_setup", "swtpm_localca")
        return cls(*(process.find_tool(name, hint=INSTALL_HINT) for name in names))


class TpmCa:
    """The CA that certifies endorsement keys; one per host, in a private folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def certificate_file(self) -> Path:
        """PEM certificate: what a KBS is to trust."""
        return self._folder / "ca.pem"

    def make(self, now: dt.datetime) -> None:
        """Make key and certificate if there are none.

        Raises:
            ConfigError: the folder cannot be used, or is not ours alone.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_ours(self._folder, stat.S_IFDIR)
            with self._locked():
                if not self.certificate_file.exists():
                    self._make(now)
            _check_ours(self._key_file, stat.S_IFREG)
        except OSError as error:
            raise disk_error(
                error, f"cannot use the folder of the TPM CA, {self._folder}"
            ) from error

    @property
    def _key_file(self) -> Path:
        return self._folder / "key.pem"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make(self, now: dt.datetime) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        # The number tells CAs of several hosts apart in an operator's folder.
        serial = x509.random_serial_number()
        name = x509.Name(
            [
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "cocos"),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, f"TPM CA {serial:x}"[:40]),
            ]
        )
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        public = key.public_key()
        policy = x509.PolicyInformation(MANAGER_CA_POLICY, None)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(now - dt.timedelta(hours=1))  # clocks differ
            .not_valid_after(now + dt.timedelta(days=365 * CA_YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            # By this a KBS tells it from a TPM vendor's.
            .add_extension(x509.CertificatePolicies([policy]), critical=False)
            .sign(key, hashes.SHA384())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # The certificate last: where it is, everything is.
        write_atomic(self._key_file, private)
        write_atomic(self._folder / "serial", b"1")
        write_atomic(self.certificate_file, certificate.public_bytes(pem), mode=0o644)

    def write_config(self, folder: Path, tools: Tools) -> Path:
        """Write what swtpm_setup must know to use this CA; return the path of its file.

        Raises:
            ConfigError: a path has characters that its configuration cannot hold.
        """
        signing = {
            "statedir": self._folder,
            "signingkey": self._key_file,
            "issuercert": self.certificate_file,
            "certserial": self._folder / "serial",
        }
        files = {
            "localca.conf": signing,
            "localca.options": {},
            "setup.conf": {
                "create_certs_tool": tools.localca,
                "create_certs_tool_config": folder / "localca.conf",
                "create_certs_tool_options": folder / "localca.options",
            },
        }
        for name, settings in files.items():
            for path in settings.values():
                # It splits lines at blanks and expands ${…}; there is no way to quote.
                if not _PLAIN_PATH.fullmatch(str(path)):
                    raise ConfigError(
                        f"swtpm_setup cannot work with the path {path}",
                        hint="name a state folder without blanks and special characters",
                    )
            lines = [f"{key} = {path}\n" for key, path in settings.items()]
            write_atomic(folder / name, "".join(lines).encode())
        return folder / "setup.conf"


async def manufacture(folder: Path, name: str, ca: TpmCa) -> None:
    """Make the state of a new TPM: endorsement keys and their certificates.

    Args:
        folder: Private folder of the TPM; gets ``state``, and ``ek-rsa2048.crt`` (DER).
        name: What the certificates call it; letters, digits and hyphens.
        ca: Certifies the keys; has been made.

    Raises:
        ToolMissingError: swtpm is not installed.
        ProcessError: it failed.
    """
    tools = Tools.find()
    state = folder / _STATE
    await asyncio.to_thread(state.mkdir, mode=0o700)
    config = await asyncio.to_thread(ca.write_config, folder, tools)
    words = [str(tools.setup), "--tpm2", "--tpm-state", f"dir://{state}"]
    words += ["--create-ek-cert", "--lock-nvram", "--pcr-banks", "sha256", "--vmid", name]
    words += ["--write-ek-cert-files", str(folder), "--config", str(config)]
    await process.run(words, env=environment(name), timeout=SETUP_SECONDS)


def start(folder: Path, name: str) -> tuple[Daemon, socket.socket]:
    """Start the TPM whose state is in ``folder``.

    Returns:
        The program, and a socket that controls it, for QEMU, with which it then ends.

    Raises:
        ToolMissingError: swtpm is not installed or does not start.
    """
    ours, theirs = socket.socketpair()
    try:
        words = [str(Tools.find().swtpm), "socket", "--tpm2"]
        words += ["--tpmstate", f"dir={folder / _STATE},mode=0600"]
        words += ["--ctrl", f"type=unixio,clientfd={theirs.fileno()}", "--terminate"]
        daemon = Daemon.start(
            words,
            mark=name,
            pid_file=folder / PID_FILE,
            log=folder / _LOG,
            inherited=[theirs.fileno()],
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return daemon, ours


def _check_ours(path: Path, kind: int) -> None:
    """Refuse what another user may have put there, or read."""
    found = path.lstat()
    others = stat.S_IMODE(found.st_mode) & 0o077
    if stat.S_IFMT(found.st_mode) != kind or found.st_uid != os.geteuid() or others:
        raise ConfigError(
            f"{path} is not for this user alone, so that others may have certified TPMs",
            hint="delete the folder, have the CA made anew, and give its certificate to every "
            "KBS that trusts the old one",
        )


def find(folder: Path) -> Daemon | None:
    """Return the running TPM of ``folder``, if it runs."""
    return Daemon.find(folder / PID_FILE)


def last_words(folder: Path) -> str:
    """Return the end of what it wrote to its log."""
    try:
        return process.tail((folder / _LOG).read_bytes()[-process.TAIL_BYTES :])
    except OSError:
        return ""
