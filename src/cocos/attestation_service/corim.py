# SPDX-License-Identifier: Apache-2.0
"""Reference values of makers, in CoRIMs that they signed."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cocos._types import JsonObject
from cocos.crypto.signature import SigningPublicKey
from cocos.errors import AuthenticationError, FormatError
from cocos.evidence.corim import Corim, signed_part

SETTING = "corim_keys"
INSECURE_SETTING = "insecure_allow_unsigned_corim"


@dataclass(frozen=True, slots=True)
class Makers:
    """Whose manifests count.

    Attributes:
        keys: That sign them; nobody's by default.
        insecure_unsigned: Also what nobody has signed.
    """

    keys: Sequence[SigningPublicKey] = ()
    insecure_unsigned: bool = False

    def values(self, data: bytes, now: dt.datetime) -> tuple[JsonObject, dt.datetime | None]:
        """Return the values in a manifest, and when they expire if it says so.

        Raises:
            AuthenticationError: nobody has signed it who counts.
            FormatError: it is none, has no values, or is not valid now.
        """
        signed = signed_part(data)
        if signed is None and not self.insecure_unsigned:
            raise AuthenticationError(
                "nobody has signed this CoRIM", hint=f"{INSECURE_SETTING} = true takes it"
            )
        if signed is not None:
            self._check(signed.verify)
        corim = Corim.parse(data if signed is None else signed.payload, signed)
        if corim.begin is not None and now < corim.begin:
            raise FormatError(f"the CoRIM is not valid before {corim.begin.isoformat()}")
        if corim.end is not None and now >= corim.end:
            raise FormatError(f"the CoRIM has expired, {corim.end.isoformat()}")
        if not corim.values:
            raise FormatError("the CoRIM has no reference values that are understood")
        return dict(corim.values), corim.end

    def _check(self, verify: Callable[[SigningPublicKey], None]) -> None:
        for key in self.keys:
            try:
                verify(key)
            except AuthenticationError:
                continue
            return
        raise AuthenticationError(
            "the CoRIM is not signed by a key that is trusted here",
            hint=f'{SETTING} = ["maker.pem"] in the settings names them',
        )
