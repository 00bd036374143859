# SPDX-License-Identifier: Apache-2.0
"""CCA tokens of Arm (draft-ffm-rats-cca-token): what a platform and its realm say, in CBOR."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from cocos.errors import FormatError
from cocos.evidence import cbor
from cocos.evidence.cose import Sign1

_WHAT: Final = "the CCA token"
_COLLECTION: Final = 399
_WRAPPED: Final = 907  # a conceptual message wrapper around each token
_CWT: Final = 263
_PLATFORM: Final = 44234
_REALM: Final = 44241
_REMS: Final = 4
_MEASUREMENTS: Final = frozenset({32, 48, 64})
_TEXTS: Final = {1: "measurement-type", 4: "version", 6: "measurement-hash-algo-id"}
_VALUES: Final = {2: "measurement-value", 5: "signer-id"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Platform:
    """What the platform says.

    Attributes:
        challenge: Digest of the realm's key.
        implementation_id: Of the kind of platform, 32 bytes.
        instance_id: Of this very platform, 33 bytes.
        lifecycle: State of its security.
        config: Of the platform, as its maker writes it.
        components: Its firmware: name → bytes or text.
    """

    challenge: bytes
    implementation_id: bytes
    instance_id: bytes
    lifecycle: int
    config: bytes
    components: tuple[Mapping[str, bytes | str], ...]


@dataclass(frozen=True, slots=True)
class Realm:
    """What the realm says.

    Attributes:
        challenge: What it was asked with, 64 bytes.
        personalization: What its host gave it, 64 bytes.
        initial_measurement: Of what it began with.
        extensible_measurements: Four registers.
        hash_algorithm: Of the measurements.
        key: Its own, as the platform hashed it.
        key_hash: Algorithm of that.
    """

    challenge: bytes
    personalization: bytes
    initial_measurement: bytes
    extensible_measurements: tuple[bytes, ...]
    hash_algorithm: str
    key: bytes
    key_hash: str


@dataclass(frozen=True, slots=True)
class Token:
    """Both parts, and who signed them."""

    platform: Platform
    realm: Realm
    platform_signed: Sign1
    realm_signed: Sign1

    @classmethod
    def parse(cls, data: bytes) -> "Token":
        """Parse a token, to its last byte.

        Raises:
            FormatError: it is none.
        """
        item = cbor.loads(data, _WHAT)
        wrapped = isinstance(item, cbor.Tagged) and item.tag == _WRAPPED
        if not isinstance(item, cbor.Tagged) or item.tag not in {_COLLECTION, _WRAPPED}:
            raise FormatError(f"{_WHAT} is no collection of tokens")
        if not isinstance(item.value, dict) or item.value.keys() != {_PLATFORM, _REALM}:
            raise FormatError(f"{_WHAT} does not have one platform's token and one realm's")
        platform, realm = (
            _signed(item.value[label], name, wrapped=wrapped)
            for label, name in ((_PLATFORM, "the platform's token"), (_REALM, "the realm's token"))
        )
        return cls(_platform(platform.payload), _realm(realm.payload), platform, realm)


def _signed(value: Any, what: str, *, wrapped: bool) -> Sign1:
    if wrapped:
        if not isinstance(value, tuple) or len(value) != 2 or value[0] != _CWT:  # noqa: PLR2004
            raise FormatError(f"{what} is not wrapped as one")
        value = value[1]
    if not isinstance(value, bytes):
        raise FormatError(f"{what} is no bytes")
    return Sign1.of(cbor.loads(value, what), what)


def _platform(payload: bytes) -> Platform:
    claims = _Claims(payload, "the platform's claims")
    return Platform(
        challenge=claims.sized(10, _MEASUREMENTS),
        implementation_id=claims.sized(2396, {32}),
        instance_id=claims.sized(256, {33}),
        lifecycle=claims.get(2395, int),
        config=claims.get(2401, bytes),
        components=tuple(map(_component, claims.get(2399, tuple))),
    )


def _component(item: Any) -> Mapping[str, bytes | str]:
    if not isinstance(item, dict):
        raise FormatError("a component of the platform is no map")
    found: dict[str, bytes | str] = {}
    for names, kind in ((_TEXTS, str), (_VALUES, bytes)):
        for label, name in names.items():
            value = item.get(label)
            if isinstance(value, kind):
                found[name] = value
            elif value is not None or label in _VALUES:
                raise FormatError(f"a component of the platform has no {name}")
    return found


def _realm(payload: bytes) -> Realm:
    claims = _Claims(payload, "the realm's claims")
    registers = claims.get(44239, tuple)
    if len(registers) != _REMS or not all(
        isinstance(each, bytes) and len(each) in _MEASUREMENTS for each in registers
    ):
        raise FormatError("the realm has not four extensible measurements")
    return Realm(
        challenge=claims.sized(10, {64}),
        personalization=claims.sized(44235, {64}),
        initial_measurement=claims.sized(44238, _MEASUREMENTS),
        extensible_measurements=registers,
        hash_algorithm=claims.get(44236, str),
        key=claims.get(44237, bytes),
        key_hash=claims.get(44240, str),
    )


class _Claims:
    """Claims by number."""

    def __init__(self, payload: bytes, what: str) -> None:
        found = cbor.loads(payload, what)
        if not isinstance(found, dict):
            raise FormatError(f"{what} are no map")
        self._found = found
        self._what = what

    def get(self, label: int, kind: type[T]) -> T:
        value = self._found.get(label)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise FormatError(f"{self._what} have no {label}, or of another type")
        return value

    def sized(self, label: int, sizes: set[int] | frozenset[int]) -> bytes:
        value = self.get(label, bytes)
        if len(value) not in sizes:
            raise FormatError(f"{self._what} have {len(value)} bytes as {label}")
        return value
