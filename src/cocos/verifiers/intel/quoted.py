# SPDX-License-Identifier: Apache-2.0
"""Evidence that holds a quote: the first steps, which are the same for enclaves and domains."""

import datetime as dt
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from cryptography import x509

from cocos._types import ReportData
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence.quote import MAX_QUOTE, EnclaveReport, Quote, TdReport
from cocos.verifiers._base import malformed
from cocos.verifiers.intel import chain
from cocos.verifiers.intel.chain import Pck
from cocos.wire import json

_ROOM: Final = 64
_MOST_TEXT: Final = 4 * (MAX_QUOTE // 3 + 1)


_Body = TypeVar("_Body", EnclaveReport, TdReport)


@dataclass(frozen=True, slots=True)
class Signed(Generic[_Body]):
    """A quote whose signatures hold up to the root.

    Attributes:
        quote: The quote.
        body: What it is over.
        pck: The certificates in it.
        now: The time that they were judged at.
    """

    quote: Quote
    body: _Body
    pck: Pck
    now: dt.datetime

    @classmethod
    def verify(
        cls,
        data: bytes,
        body: type[_Body],
        root: x509.Certificate | None,
        now: dt.datetime,
        step: str,
    ) -> "Signed[_Body]":
        """Return a quote whose signatures hold.

        Args:
            data: The quote.
            body: What it must be over.
            root: Believed instead of Intel's, which proves nothing.
            now: The time that certificates are judged at.
            step: What findings' names begin with.

        Raises:
            EvidenceError: malformed, over something else, or a signature does not hold.
        """
        try:
            quote = Quote.parse(data)
            pck = Pck.parse(quote.chain)
        except FormatError as error:
            raise malformed(step, error) from error
        if not isinstance(quote.body, body):
            raise malformed(step, FormatError("the quote is over another kind of TEE"))
        findings = chain.check(quote, pck, root, now, step)
        if findings:
            raise refused(step, findings)
        return cls(quote, quote.body, pck, now)


def decode(text: str, step: str) -> bytes:
    """Return a quote in standard base64 as its bytes.

    Raises:
        EvidenceError: it is none, or too long for a quote.
    """
    if len(text) > _MOST_TEXT:
        raise malformed(step, FormatError(f"the quote has {len(text)} characters"))
    try:
        return json.b64decode(text, "quote")
    except FormatError as error:
        raise malformed(step, error) from error


def bound(carried: bytes, expected: ReportData, step: str) -> list[Finding]:
    """Return a finding if report data are not the expected, filled up with zeros."""
    wanted = bytes(expected)
    if len(wanted) > _ROOM:
        problem = f"a quote has room for {_ROOM} bytes of report data"
        return [Finding(f"{step}.report_data", problem, expected=f"{len(wanted)} bytes")]
    if hmac.compare_digest(carried, wanted.ljust(_ROOM, b"\0")):
        return []
    problem = "the quote is not bound to this nonce and TEE key: another session's, or old"
    return [Finding(f"{step}.report_data", problem, carried.hex(), wanted.hex())]


def launched_with(carried: bytes, init_data: bytes | None, name: str, step: str) -> list[Finding]:
    """Return a finding if what was given at launch is not the digest of the init data shown.

    Args:
        carried: What the report has, e.g. MRCONFIGID.
        init_data: Digest of the init data; None when the guest showed none.
        name: Of the field, for messages.
        step: What findings' names begin with.
    """
    if init_data is None:
        return []
    if len(init_data) > len(carried):
        problem = f"{name} has room for {len(carried)} bytes"
        return [Finding("init_data.algorithm", problem, f"{len(init_data)} bytes")]
    if hmac.compare_digest(carried, init_data.ljust(len(carried), b"\0")):
        return []
    problem = f"the init data shown is not what {name} was set to at launch"
    return [Finding(f"{step}.init_data", problem, carried.hex(), init_data.hex())]


def refused(step: str, findings: Sequence[Finding], hint: str | None = None) -> EvidenceError:
    """Return the refusal of evidence that does not hold."""
    return EvidenceError(
        f"the {step} evidence does not hold: {findings[0].problem}",
        findings=tuple(findings),
        hint=hint,
    )
