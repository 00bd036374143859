# SPDX-License-Identifier: Apache-2.0
"""Every error of the project, by whose fault it is.

::

    CocosError
    ├── CallerError                the command line, the configuration or the request
    │   ├── UsageError
    │   ├── ConfigError
    │   ├── FormatError            bytes or JSON that do not parse
    │   │   └── TeeKeyError        a TEE's key that nothing can be encrypted to
    │   ├── TooLargeError
    │   ├── TooManyRequestsError
    │   ├── AuthenticationError    we do not know who is asking
    │   ├── AccessDeniedError      we know, and a policy says no
    │   │   └── PolicyFailedError  the policy fails, which is no yes
    │   ├── NotFoundError
    │   ├── StateError             right request, wrong moment
    │   └── UnsupportedError       right request, but this platform can never do it
    ├── EvidenceError              evidence or a token does not hold; carries findings
    ├── IntegrityError             content does not match its digest, key or MAC
    ├── ComputationError           somebody's algorithm failed
    ├── PeerError                  another program or server
    │   ├── UnreachableError
    │   ├── StorageError           a database or disk cannot serve at the moment
    │   ├── ProtocolError          it answered, but not what the protocol says
    │   ├── ToolMissingError
    │   └── ProcessError
    └── InternalError              ours

``message`` is safe to show to the peer and to the user and never holds a secret;
the cause travels as ``__cause__`` and goes to the log only.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

MAX_FINDING: Final = 1000
"""Characters of each text of a :class:`Finding`."""

_OPENS_A_DOOR: Final = re.compile(
    r"-*(?:insecure|allow[-_]?all|any[-_]computation|replace[-_]policy)", re.IGNORECASE
)


_LIMITS: Final = {
    "greater_than_equal": ("ge", "less than"),
    "greater_than": ("gt", "not more than"),
    "less_than_equal": ("le", "more than"),
    "less_than": ("lt", "not less than"),
}
_KINDS: Final = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    "ip_any_network": "a network, such as 10.0.0.0/8",
}
"""Pydantic's kinds of errors, in plain words."""


def proposable(names: Iterable[str]) -> list[str]:
    """Return the names that a hint may propose: none that switches a protection off.

    Who mistypes some setting must not be led to one that opens a door.
    """
    return [name for name in names if not _OPENS_A_DOOR.match(name)]


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint at the name that somebody may have meant; see :func:`proposable`."""
    found = difflib.get_close_matches(word, proposable(known), n=1)
    return f"did you mean {found[0]}?" if found else None


def problem_of(details: Mapping[str, Any]) -> str:
    """Say in plain words why a setting cannot have a value.

    Args:
        details: One of the errors of pydantic. The value is shown where it is one of a few
            words, a number or a network; any other may be a secret.
    """
    kind, value, more = details["type"], details["input"], details.get("ctx", {})
    shown = repr(value if isinstance(value, int | float) else str(value)[:64])
    if kind in {"literal_error", "enum"}:
        return f"{shown} is not {more['expected']}"
    if kind in _LIMITS:
        limit, words = _LIMITS[kind]
        return f"{str(value)[:64]} is {words} {more[limit]}"
    if kind in _KINDS:
        return f"{shown} is not {_KINDS[kind]}"
    return str(details["msg"]).removeprefix("Value error, ")


def retry_after(text: str | None) -> float | None:
    """Return the seconds that a peer asks to wait; None if it does not say, or not in seconds."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def wait_asked(seconds: float) -> str:
    """Return the words for it, which :data:`WAIT_ASKED` finds again."""
    return f"it asks to wait {seconds:.0f} s"


WAIT_ASKED: Final = re.compile(r"it asks to wait (\d{1,9}) s")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check that did not hold, for those who may know why.

    Attributes:
        check: Dotted, stable name of the check, such as ``tpm.pcr11``.
        problem: One sentence for a person.
        actual: The value found, as text; never a secret.
        expected: The value or values that would have passed, as text.

    Texts are cut at :data:`MAX_FINDING`: they may come from whoever is denied, as often as he
    likes, and go to logs and the store.
    """

    check: str
    problem: str
    actual: str = ""
    expected: str = ""

    def __post_init__(self) -> None:
        for name in ("check", "problem", "actual", "expected"):
            text = getattr(self, name)
            if len(text) > MAX_FINDING:
                object.__setattr__(self, name, f"{text[: MAX_FINDING - 1]}…")


class CocosError(Exception):
    """Base of all errors: a sentence for the user, a hint, and codes for machines."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 70  # os.EX_SOFTWARE
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"  # name of a member of grpc.StatusCode

    def __init__(
        self, message: str, *, hint: str | None = None, findings: tuple[Finding, ...] = ()
    ) -> None:
        """Say what is wrong.

        Args:
            message: One sentence.
            hint: What to do.
            findings: Every check that did not hold, for the operator's log and
                ``kbs-client explain``; the peer sees only ``message`` and ``hint``.
        """
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.findings = findings


class CallerError(CocosError):
    """The request, the command line or the configuration is wrong."""

    code = "bad-request"
    exit_code = 2
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class UsageError(CallerError):
    """The command line does not make sense."""


class ConfigError(CallerError):
    """A configuration file, variable or key file is wrong."""

    code = "config"
    exit_code = 78  # os.EX_CONFIG


class FormatError(CallerError):
    """Bytes or JSON that do not parse as what they claim to be."""

    code = "malformed"
    exit_code = 65  # os.EX_DATAERR


class TeeKeyError(FormatError):
    """A TEE's public key that nothing can be encrypted to."""


class TooLargeError(CallerError):
    """More bytes than the limit allows."""

    code = "too-large"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class TooManyRequestsError(CallerError):
    """More requests than this caller may make at the moment.

    Attributes:
        retry_after: Seconds after which the next one has a chance.
    """

    code = "too-many-requests"
    exit_code = 75  # os.EX_TEMPFAIL
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, *, retry_after: float = 1.0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class AuthenticationError(CallerError):
    """The caller has not proved who it is."""

    code = "unauthenticated"
    exit_code = 77  # os.EX_NOPERM
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class AccessDeniedError(CallerError):
    """A policy denied the request of a caller that is known."""

    code = "denied"
    exit_code = 77
    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class PolicyFailedError(AccessDeniedError):
    """The policy that decides on a request fails, or cannot be evaluated."""


class NotFoundError(CallerError):
    """The thing asked for does not exist."""

    code = "not-found"
    exit_code = 66  # os.EX_NOINPUT
    http_status = 404
    grpc_status = "NOT_FOUND"


class StateError(CallerError):
    """The request is right but not at this moment."""

    code = "wrong-state"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class UnsupportedError(CallerError):
    """The request is right but this platform, version or configuration cannot do it."""

    code = "unsupported"
    exit_code = 69  # os.EX_UNAVAILABLE
    http_status = 501
    grpc_status = "FAILED_PRECONDITION"


class EvidenceError(CocosError):
    """Evidence or a token does not hold."""

    code = "evidence"
    exit_code = 77
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class IntegrityError(CocosError):
    """Content does not match its digest, its key or its authentication tag."""

    code = "integrity"
    exit_code = 65
    http_status = 400
    grpc_status = "DATA_LOSS"


class ComputationError(CocosError):
    """An algorithm ran and failed.

    Attributes:
        exit_status: The algorithm's own exit code, or 128 + the signal that ended it.
        tail: The last lines of what it wrote, decoded with replacement.
    """

    code = "computation"
    exit_code = 1
    grpc_status = "ABORTED"

    def __init__(self, message: str, *, exit_status: int, tail: str = "") -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.tail = tail


class PeerError(CocosError):
    """Another program or server did not do its part."""

    code = "peer"
    exit_code = 76  # os.EX_PROTOCOL
    http_status = 502
    grpc_status = "INTERNAL"


class UnreachableError(PeerError):
    """Nobody answered at the address that the message names, or not for now.

    Attributes:
        retry_after: Seconds after which the peer says that it answers; None: it does not say.
    """

    code = "unreachable"
    exit_code = 69  # os.EX_UNAVAILABLE
    http_status = 503
    grpc_status = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class UntrustedError(UnreachableError):
    """TLS does not show that what answers is the peer; that passes by no waiting."""

    code = "untrusted"
    http_status = 502
    grpc_status = "UNAUTHENTICATED"


class StorageError(PeerError):
    """A database does not answer, or a disk is full, read-only or broken.

    What was asked has not been done, or nobody knows; it can be asked again later.
    """

    code = "storage"
    exit_code = 74  # os.EX_IOERR
    http_status = 503
    grpc_status = "UNAVAILABLE"


class ProtocolError(PeerError):
    """A peer answered something that its protocol does not allow."""

    code = "protocol"


class ToolMissingError(PeerError):
    """A program that we need is not installed; the hint says how to get it."""

    code = "tool-missing"
    exit_code = 69


class ProcessError(PeerError):
    """A child process failed.

    Attributes:
        exit_status: Its exit code, negative for a signal as in ``subprocess``.
        stderr: The end of its standard error.
    """

    code = "process"
    exit_code = 70

    def __init__(
        self, message: str, *, exit_status: int, stderr: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status
        self.stderr = stderr


class InternalError(CocosError):
    """A fault of ours."""
