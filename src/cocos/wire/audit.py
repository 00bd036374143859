# SPDX-License-Identifier: Apache-2.0
"""The audit log: entries in a hash chain, checkpoints signed with a key of their own.

The hash of an entry is SHA-256 over 0x01, the hash before it and the entry's exact bytes;
before the first entry stands SHA-256 over 0x00 and the log's id. A checkpoint is a JWT
(EdDSA) that names the log, the number of an entry and its hash. Whoever has one can tell
with the public key alone whether a log still begins with everything it began with then.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ed25519

from cocos.crypto import jwt
from cocos.errors import AuthenticationError, Finding, FormatError, IntegrityError
from cocos.wire import json

MAX_FINDINGS: Final = 100

_TYPE: Final = "cocos-audit-checkpoint"
_FIRST: Final = b"\x00"
_NEXT: Final = b"\x01"


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened. Members that do not apply are absent; none ever holds a secret or token.

    Attributes:
        event: ``attested``, ``released``, ``denied``, ``administered`` (before an
            administrator's change is made), ``failed`` (that change, afterwards),
            ``rekeyed``, ``token-key-published``, ``token-key-revoked``, ``denied-more``.
        seq: 1, 2, 3 … within the log; set when it is appended.
        time: By the clock of the key broker that appended it.
        request: Correlation id, as the peer was told.
        address: Who asked; absent for programs of the same machine.
        step: Method and path.
        admin: Which administrator.
        tee: Kind of attester.
        evidence: SHA-256 of the body that carried the evidence.
        token: SHA-256 of the attestation token.
        affirming: Whether the appraisal of the evidence found nothing wrong.
        verdict: Submodule → ``ear.status``, of the token.
        resource: Name of the resource.
        policy: Id of the policy that decided.
        policy_digest: SHA-256 of its text, or of the policy that is being set.
        code: Of an error.
        reason: Its sentence.
        checks: Names of the checks that did not hold.
        count: How many denials this one stands for.
        key: Id of the new data key, or of the key that signs tokens.
    """

    event: str
    seq: int = 0
    time: dt.datetime = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    request: str = ""
    address: str = ""
    step: str = ""
    admin: str = ""
    tee: str = ""
    evidence: str = ""
    token: str = ""
    affirming: bool | None = None
    verdict: dict[str, str] = {}
    resource: str = ""
    policy: str = ""
    policy_digest: str = ""
    code: str = ""
    reason: str = ""
    checks: tuple[str, ...] = ()
    count: int = 0
    key: str = ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry in its log.

    Attributes:
        seq: Its number.
        entry: Its exact text, JSON of :class:`Entry`.
        hash: Lower-case hex.
        checkpoint: Signed after this entry; every write of a key broker ends with one.
    """

    seq: int
    entry: str
    hash: str
    checkpoint: str = ""


class Page(msgspec.Struct, frozen=True):
    """Some consecutive records of a log."""

    log: str
    records: tuple[Record, ...]


class Head(msgspec.Struct, frozen=True):
    """The end of a log: its newest checkpoint, and the key that signs them (PEM).

    The checkpoint is empty where somebody has taken it away.
    """

    log: str
    checkpoint: str
    public_key: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a signed checkpoint says."""

    log: str
    seq: int
    hash: str


def first_hash(log: str) -> bytes:
    """Return the hash that stands before a log's first entry."""
    return hashlib.sha256(_FIRST + log.encode()).digest()


def next_hash(before: bytes, entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return hashlib.sha256(_NEXT + before + entry).digest()


def sign(checkpoint: Checkpoint, key: ed25519.Ed25519PrivateKey, now: dt.datetime) -> str:
    """Sign a checkpoint."""
    claims = {
        "log": checkpoint.log,
        "seq": checkpoint.seq,
        "hash": checkpoint.hash,
        "iat": int(now.timestamp()),
    }
    return jwt.sign({"typ": _TYPE}, claims, key)


def open_checkpoint(text: str, key: ed25519.Ed25519PublicKey) -> Checkpoint:
    """Return what a checkpoint says.

    Raises:
        FormatError: not a checkpoint.
        AuthenticationError: another key signed it.
    """
    claims = jwt.verify(text.strip(), key)
    if jwt.header_of(text.strip()).get("typ") != _TYPE:
        raise FormatError("this is a token, but not an audit checkpoint")
    log, seq, digest = (claims.get(name) for name in ("log", "seq", "hash"))
    if not isinstance(log, str) or not isinstance(seq, int) or not isinstance(digest, str):
        raise FormatError("the audit checkpoint lacks log, seq or hash")
    return Checkpoint(log, seq, digest)


@dataclass(slots=True)
class Verification:
    """Goes through a log from its first entry and notes what does not hold.

    Args:
        log: Its id.
        key: Of its checkpoints.
        kept: Checkpoints from elsewhere that the log must agree with.
    """

    log: str
    key: ed25519.Ed25519PublicKey
    kept: Iterable[Checkpoint] = ()
    findings: list[Finding] = field(default_factory=list)
    seq: int = 0
    signed: int = 0
    """Number of the last entry that a checkpoint of the log itself vouches for."""

    _hash: bytes = b""
    _kept: dict[int, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._hash = first_hash(self.log)
        for checkpoint in self.kept:
            if checkpoint.log != self.log:
                self._note("audit.log", "a checkpoint is of another log", self.log, checkpoint.log)
            else:
                self._kept.setdefault(checkpoint.seq, set()).add(checkpoint.hash)

    def add(self, record: Record) -> None:
        """Look at the next record."""
        expected = self.seq + 1
        if record.seq != expected:
            problem = f"entries {expected} to {record.seq - 1} are missing"
            if record.seq < expected:
                problem = f"entry {record.seq} stands behind entry {self.seq}"
            self._note("audit.order", problem, str(record.seq), str(expected))
        self.seq = record.seq
        entry = record.entry.encode()
        found = next_hash(self._hash, entry)
        if found.hex() != record.hash:
            problem = f"entry {record.seq}, or one before it, was changed"
            self._note("audit.hash", problem, record.hash, found.hex())
            # Go on from what is there, so that one change is found once.
            found = _bytes(record.hash) or found
        self._hash = found
        if (inside := _seq(entry)) != record.seq:
            problem = f"entry {record.seq} says that it is another one"
            self._note("audit.seq", problem, str(inside), str(record.seq))
        if record.checkpoint:
            self._check(record)
        for digest in self._kept.pop(record.seq, set()):
            if digest != record.hash:
                problem = f"entry {record.seq} is not the one of the checkpoint that was kept"
                self._note("audit.kept-checkpoint", problem, record.hash, digest)

    def end(self) -> None:
        """Look at what is missing behind the last record."""
        if self.signed < self.seq:
            problem = f"entries {self.signed + 1} to {self.seq} are followed by no checkpoint"
            self._note("audit.unsigned-end", problem, str(self.signed), str(self.seq))
        for seq in sorted(self._kept):
            problem = f"a checkpoint that was kept is for entry {seq}, but the log ends earlier"
            self._note("audit.cut", problem, str(self.seq), str(seq))

    def raise_if_broken(self) -> None:
        """Raise IntegrityError if something does not hold."""
        if self.findings:
            first = self.findings[0]
            raise IntegrityError(f"the audit log does not hold: {first.problem}")

    def _check(self, record: Record) -> None:
        try:
            said = open_checkpoint(record.checkpoint, self.key)
        except (FormatError, AuthenticationError) as error:
            problem = f"the checkpoint after entry {record.seq} does not hold: {error.message}"
            self._note("audit.checkpoint", problem)
            return
        if said != Checkpoint(self.log, record.seq, record.hash):
            problem = f"the checkpoint after entry {record.seq} is for something else"
            self._note("audit.checkpoint", problem, str(said), str(record.seq))
            return
        self.signed = record.seq

    def _note(self, check: str, problem: str, actual: str = "", expected: str = "") -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(check, problem, actual, expected))


class _Numbered(msgspec.Struct):
    seq: int


def _seq(entry: bytes) -> int | None:
    try:
        found: _Numbered = json.decode(entry, _Numbered, "an entry")
    except FormatError:
        return None
    return found.seq


def _bytes(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def encode(entry: Entry) -> bytes:
    """Return the exact bytes of an entry."""
    return json.encode(entry)


def decode(record: Record) -> dict[str, Any]:
    """Return the members of a record's entry."""
    members: dict[str, Any] = json.decode(record.entry, dict[str, Any], "an entry")
    return members
