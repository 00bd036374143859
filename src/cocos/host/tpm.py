# SPDX-License-Identifier: Apache-2.0
"""The TPM 2.0 of this machine, through tpm2-pytss.

The library is a package of Debian's and not of ours: it is loaded when a TPM is used. The
keys are primary keys of the endorsement hierarchy: the TPM derives them from its own seed,
so that nothing is stored and every start of ours finds the same ones.
"""

import asyncio
import contextlib
import importlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import structlog

from cocos.attesters import AttestationKey, SignedQuote
from cocos.errors import (
    ConfigError,
    IntegrityError,
    ProtocolError,
    ToolMissingError,
    UnreachableError,
)
from cocos.evidence.tpm import PCR_COUNT

DEVICE: Final = Path("/dev/tpmrm0")
BOOT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
COMMAND_LINE: Final = Path("/proc/cmdline")

_PCRS_PER_READ: Final = 8  # TPM2_PCR_Read returns no more
_AK_ATTRIBUTES: Final = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
_RC_LAYER: Final = 0xFF0000  # of a TSS2_RC; zero: the TPM itself answered
_RC_RM_LAYER: Final = 0x0C0000  # the kernel's resource manager answered for it
_TRANSIENT: Final = 0x80000000
_LOADED_SESSION: Final = 0x02000000

T = TypeVar("T")

_log = structlog.get_logger(__name__)


def find(name: str | None) -> str | None:
    """Return the TCTI of the TPM to use, or None if this machine has none.

    Args:
        name: Path of a device, or a TCTI such as ``swtpm:path=/run/tpm.sock``; None for
            the device of this machine.
    """
    if name is None:
        return f"device:{DEVICE}" if DEVICE.exists() else None
    return f"device:{name}" if name.startswith("/") else name


class Tpm:
    """A TPM; an async context manager.

    It is opened at the first use, and again at the first use after a failure. Calls wait
    for each other.

    Args:
        tcti: As of :func:`find`.
        boot_log: The firmware's event log.
        command_line: The kernel's command line.
        ak_handle: Where an attestation key of the owner's lies; without, we make ours.
    """

    def __init__(
        self,
        tcti: str,
        *,
        boot_log: Path = BOOT_LOG,
        command_line: Path = COMMAND_LINE,
        ak_handle: int | None = None,
    ) -> None:
        self._tcti = tcti
        self._ak_handle = ak_handle
        self._boot_log = boot_log
        self._command_line = command_line
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._close)

    async def attestation_key(self) -> AttestationKey:
        """Return the public part of our attestation key."""
        return await self._use(lambda tpm: tpm.ak[1])

    async def ek_certificate(self) -> bytes | None:
        """Return the certificate of the RSA-2048 endorsement key, DER."""
        return await self._use(lambda tpm: tpm.ek[1])

    async def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """Recover the secret of a credential challenge."""
        return await self._use(lambda tpm: tpm.activate(credential_blob, encrypted_secret))

    async def quote(self, data: bytes) -> SignedQuote:
        """Quote all SHA-256 PCRs."""
        return await self._use(lambda tpm: tpm.quote(data))

    async def pcrs(self) -> tuple[bytes, ...]:
        """Return all SHA-256 PCRs."""
        return await self._use(lambda tpm: tpm.pcrs())

    async def extend(self, index: int, digest: bytes) -> None:
        """Extend a SHA-256 PCR."""
        await self._use(lambda tpm: tpm.extend(index, digest))

    async def boot_log(self) -> bytes:
        """Return the firmware's event log; empty if the kernel shows none."""
        return _read(self._boot_log)

    async def command_line(self) -> str:
        """Return the kernel's command line, without its newline."""
        return _read(self._command_line).decode("utf-8", "replace").removesuffix("\n")

    async def _use(self, call: Callable[["_Opened"], T]) -> T:
        return await asyncio.to_thread(self._locked, call)

    def _locked(self, call: Callable[["_Opened"], T]) -> T:
        with self._lock:
            try:
                if self._opened is None:
                    self._opened = _Opened(self._tcti, self._ak_handle)
                return call(self._opened)
            except UnreachableError:
                # The connection may be out of step: the next call begins anew.
                self._drop()
                raise

    def _close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()


class _Opened:
    """An open connection; blocks, and serves one thread at a time."""

    def __init__(self, tcti: str, ak_handle: int | None) -> None:
        self._tss = _library()
        self._where = tcti
        self._ak_handle = ak_handle
        self._ek: tuple[Any, bytes | None] | None = None
        self._ak: tuple[Any, AttestationKey] | None = None
        with self._errors("to be opened"):
            self._esys = self._tss.ESAPI(tcti)
        if not tcti.startswith(f"device:{DEVICE.parent}/tpmrm"):
            self._flush_left_over()

    @property
    def ak(self) -> tuple[Any, AttestationKey]:
        """Handle and public part of the attestation key."""
        if self._ak is None:
            handle, public = self._own_ak() if self._ak_handle is None else self._kept_ak()
            self._ak = handle, AttestationKey(public.marshal(), public.to_der())
        return self._ak

    def _own_ak(self) -> tuple[Any, Any]:
        template = self._tss.TPM2B_PUBLIC.parse("rsa2048:rsassa-sha256:null", _AK_ATTRIBUTES)
        with self._errors("to make an attestation key"):
            return self._primary(template)

    def _kept_ak(self) -> tuple[Any, Any]:
        tss = self._tss
        with self._errors(f"to show the attestation key at {self._ak_handle:#x}"):
            handle = self._esys.tr_from_tpmpublic(self._ak_handle)
            public, _, _ = self._esys.read_public(handle)
        area = public.publicArea
        wanted = tss.TPMA_OBJECT.parse(_AK_ATTRIBUTES)
        # A key that is not restricted signs whatever looks like a quote, too.
        if area.type != tss.TPM2_ALG.RSA or area.objectAttributes & wanted != wanted:
            raise ConfigError(
                f"the key at {self._ak_handle:#x} of the TPM is no RSA attestation key",
                hint="tpm2_createak, tpm2_evictcontrol; or leave AA_TPM_AK_HANDLE out",
            )
        return handle, public

    @property
    def ek(self) -> tuple[Any, bytes | None]:
        """Handle and certificate of the endorsement key."""
        if self._ek is None:
            read = self._tss.utils.NVReadEK(self._esys)
            with self._errors("to show its endorsement key"):
                certificate, template = self._tss.utils.create_ek_template("EK-RSA2048", read)
                handle, _ = self._primary(template)
            self._ek = handle, certificate
        return self._ek

    def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        tss, esys = self._tss, self._esys
        try:
            blob, blob_end = tss.TPM2B_ID_OBJECT.unmarshal(credential_blob)
            secret, secret_end = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(encrypted_secret)
        except tss.TSS2_Exception as error:
            raise IntegrityError("the KBS's challenge to the TPM is malformed") from error
        if (blob_end, secret_end) != (len(credential_blob), len(encrypted_secret)):
            raise IntegrityError("the KBS's challenge to the TPM is malformed")
        ak, ek = self.ak[0], self.ek[0]
        with self._policy() as session, self._errors("the KBS's challenge"):
            try:
                found = esys.activate_credential(ak, ek, blob, secret, session2=session)
            except tss.TSS2_Exception as error:
                if _from_tpm(error):
                    raise IntegrityError(
                        "the TPM refused the KBS's challenge, which is for another TPM or "
                        f"another attestation key: {error}"
                    ) from error
                raise
        return bytes(found)

    def quote(self, data: bytes) -> SignedQuote:
        handle = self.ak[0]
        with self._errors("a quote"):
            message, signature = self._esys.quote(handle, _selection(0, PCR_COUNT), data)
            return SignedQuote(bytes(message), signature.marshal())

    def pcrs(self) -> tuple[bytes, ...]:
        values: list[bytes] = []
        for begin in range(0, PCR_COUNT, _PCRS_PER_READ):
            with self._errors("to show its PCRs"):
                _, _, digests = self._esys.pcr_read(_selection(begin, begin + _PCRS_PER_READ))
            values += [bytes(digest) for digest in digests]
        return tuple(values)

    def extend(self, index: int, digest: bytes) -> None:
        tss = self._tss
        what = tss.TPMT_HA(hashAlg=tss.TPM2_ALG.SHA256, digest=tss.TPMU_HA(sha256=digest))
        with self._errors(f"to extend PCR {index}"):
            self._esys.pcr_extend(tss.ESYS_TR(index), tss.TPML_DIGEST_VALUES([what]))

    def close(self) -> None:
        for handle in (self._ak, self._ek):
            with contextlib.suppress(self._tss.TSS2_Exception):
                if handle is not None:
                    self._esys.flush_context(handle[0])
        self._esys.close()

    def _primary(self, template: Any) -> tuple[Any, Any]:
        sensitive = self._tss.TPM2B_SENSITIVE_CREATE()
        handle, public, *_ = self._esys.create_primary(
            sensitive, template, self._tss.ESYS_TR.ENDORSEMENT
        )
        return handle, public

    @contextlib.contextmanager
    def _policy(self) -> Iterator[Any]:
        """Have a session that satisfies the endorsement key's policy (EK Profile, PolicyA)."""
        tss, esys = self._tss, self._esys
        none = tss.ESYS_TR.NONE
        with self._errors("a session"):
            session = esys.start_auth_session(
                none,
                none,
                tss.TPM2_SE.POLICY,
                tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL),
                tss.TPM2_ALG.SHA256,
            )
        try:
            with self._errors("the use of its endorsement key"):
                esys.policy_secret(tss.ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
            yield session
        finally:
            # Ends by itself when it has been used.
            with contextlib.suppress(tss.TSS2_Exception):
                esys.flush_context(session)

    def _flush_left_over(self) -> None:
        """Free what a program before us left, where no resource manager does it."""
        tss = self._tss
        for kind in (_TRANSIENT, _LOADED_SESSION):
            with self._errors("to list its objects"):
                _, found = self._esys.get_capability(tss.TPM2_CAP.HANDLES, kind, 64)
            for number in found.data.handles:
                with contextlib.suppress(tss.TSS2_Exception):
                    self._esys.flush_context(self._esys.tr_from_tpmpublic(number))

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Translate the library's exceptions."""
        try:
            yield
        except self._tss.TSS2_Exception as error:
            if _from_tpm(error):
                raise ProtocolError(f"the TPM at {self._where} refused {what}: {error}") from error
            raise UnreachableError(
                f"the TPM at {self._where} does not answer: {error}",
                hint="is it there, and are we allowed to use it?",
            ) from error


def _from_tpm(error: Any) -> bool:
    """Tell whether the TPM answered, or the way to it failed."""
    return error.rc & _RC_LAYER in {0, _RC_RM_LAYER}


def _library() -> Any:
    """Load tpm2-pytss.

    Raises:
        ToolMissingError: it is not installed.
    """
    # It writes every failure to standard error, also those that are expected.
    os.environ.setdefault("TSS2_LOG", "all+none")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it names ciphers that cryptography retires
            module = importlib.import_module("tpm2_pytss")
            importlib.import_module("tpm2_pytss.utils")
    except ImportError as error:
        raise ToolMissingError(
            "this machine has a TPM, but Python's tpm2-pytss is not installed",
            hint="apt-get install python3-tpm2-pytss, and run on the system's Python",
        ) from error
    return module


def _selection(begin: int, end: int) -> str:
    return "sha256:" + ",".join(map(str, range(begin, end)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _log.warning("tpm.unreadable", path=str(path), problem=error.strerror)
        return b""
