# SPDX-License-Identifier: Apache-2.0
"""A server's certificate and key: looked at before they serve, with a sentence on what is wrong."""

import re
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cocos._clock import Clock, system_clock
from cocos.errors import ConfigError, ProcessError
from cocos.host import process

MAKE: Final = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 "
    "-keyout kbs.key -out kbs.crt -subj /CN=kbs -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
)
_FITS: Final = "both must be PEM files, the key unencrypted and the certificate's own"
_LIMIT: Final = 2**20
_SECONDS: Final = 60.0
_DER: Final = b"\x30"
_REASON: Final = re.compile(r"`Err` value: (.{1,200})$", re.MULTILINE)
"""What rustls says when it is given what it does not take."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a server: certificate chain, leaf first, and its unencrypted key.

    ``min_version`` is the oldest TLS to speak: 1.3 or 1.2.
    """

    certificate: Path
    private_key: Path
    min_version: Literal["1.2", "1.3"] = "1.3"

    def check(self, clock: Clock = system_clock) -> None:
        """Check that they are what they should be, and warn of what no client will accept.

        Raises:
            ConfigError: no certificate and key in PEM that belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # The password keeps OpenSSL from asking for one on the terminal.
            context.load_cert_chain(self.certificate, self.private_key, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            why = error.strerror or str(error)
            raise ConfigError(f"{self.named}: {why}", hint=self._advice()) from error
        self._warn(self._chain()[0], clock)

    @property
    def named(self) -> str:
        """What a message on them begins with."""
        return f"cannot use the certificate {self.certificate} with the key {self.private_key}"

    def _advice(self) -> str:
        for file, kind in ((self.certificate, "x509"), (self.private_key, "pkey")):
            if _content(file).startswith(_DER):
                return (
                    f"{file} is DER or PKCS#12: openssl {kind} -inform DER -in {file} -out NEW, or "
                    f"openssl pkcs12 -nodes -in {file} -out NEW"
                )
        if b"ENCRYPTED" in _content(self.private_key):
            return f"the key is encrypted: openssl pkey -in {self.private_key} -out plain.key"
        if self._key_is_of_another():
            return "the server's own certificate comes first in the file, then who certified it"
        return _FITS

    def _chain(self) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(_content(self.certificate))
        except ValueError as error:
            raise ConfigError(
                f"{self.named}: it does not parse", hint=f"make one: {MAKE}"
            ) from error

    def _key_is_of_another(self) -> bool:
        """Whether the key is that of another certificate of the file than the first."""
        try:
            key = load_pem_private_key(_content(self.private_key), None).public_key()
            return any(key == each.public_key() for each in self._chain()[1:])
        except (ConfigError, TypeError, ValueError, UnsupportedAlgorithm):
            return False

    def _warn(self, leaf: x509.Certificate, clock: Clock) -> None:
        now = clock()
        problems = []
        if leaf.not_valid_after_utc <= now:
            problems.append(f"it has expired on {leaf.not_valid_after_utc:%Y-%m-%d}")
        if leaf.not_valid_before_utc > now:
            problems.append(f"it is valid from {leaf.not_valid_before_utc:%Y-%m-%d} on only")
        try:
            leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except (x509.ExtensionNotFound, ValueError):
            problems.append("it has no subjectAltName, which is where clients look for the host")
        for problem in problems:
            _log.warning(
                "tls.certificate",
                file=str(self.certificate),
                problem=problem,
                meaning="clients refuse it",
            )


async def check_served(tls: TlsFiles) -> None:
    """Check that the HTTP server takes the files: rustls ends the whole process at some.

    Raises:
        ConfigError: it does not, or nobody would.
    """
    tls.check()
    argv = [sys.executable, "-P", "-m", "cocos.transport.tls_probe"]
    try:
        await process.run(
            [*argv, tls.certificate, tls.private_key, tls.min_version], timeout=_SECONDS
        )
    except ProcessError as error:
        raise ConfigError(
            f"{tls.named}: {_reason(error.stderr)}", hint=f"make another one: {MAKE}"
        ) from error


def _reason(stderr: str) -> str:
    if "UnsupportedCertVersion" in stderr:
        return "it is X.509 v1, which the HTTP server does not serve, and has no names of hosts"
    found = _REASON.findall(stderr)
    return f"the HTTP server does not take them ({found[-1] if found else 'it says nothing'})"


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_LIMIT)
    except OSError:
        return b""
