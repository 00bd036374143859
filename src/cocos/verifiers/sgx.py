# SPDX-License-Identifier: Apache-2.0
"""SGX evidence: a quote over an enclave, version 3."""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from cocos._types import JsonObject
from cocos.errors import EvidenceError
from cocos.evidence.quote import EnclaveReport
from cocos.verifiers._base import Authentic, Expected, malformed
from cocos.verifiers.intel import quoted
from cocos.verifiers.intel.appraisal import Appraiser
from cocos.verifiers.intel.verifier import IntelVerifier
from cocos.wire.kbs.protocol import Tee

_STEP: Final = "sgx"
_DEBUG: Final = 1 << 1  # of ATTRIBUTES.FLAGS (Intel SDM, volume 3D, §35.7.1)


class SgxEvidence(msgspec.Struct, frozen=True):
    """Evidence of kind ``sgx``; ``quote`` is standard base64."""

    quote: str


class SgxVerifier(IntelVerifier):
    """Checks quotes of SGX enclaves."""

    kind: ClassVar[Tee] = Tee.SGX
    takes_unbound: ClassVar[bool] = True

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check the quote's signatures up to the root, and that it is bound to this session."""
        try:
            shape = msgspec.convert(evidence, SgxEvidence)
        except msgspec.ValidationError as error:
            raise malformed(_STEP, error) from error
        data = quoted.decode(shape.quote, _STEP)
        root = self._appraiser.root
        signed = quoted.Signed.verify(data, EnclaveReport, root, self._clock(), _STEP)
        found = quoted.bound(signed.body.report_data, expected.report_data, _STEP)
        if found:
            raise quoted.refused(_STEP, found)
        return _Authentic(signed, self._appraiser)


@dataclass(frozen=True, slots=True)
class _Authentic(Authentic):
    signed: quoted.Signed[EnclaveReport]
    appraiser: Appraiser

    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Check platform and init data."""
        return await asyncio.to_thread(self._claims, init_data)

    def _claims(self, init_data: bytes | None) -> JsonObject:
        quote = self.signed.quote
        body = self.signed.body
        found = quoted.launched_with(body.config_id, init_data, "CONFIGID", _STEP)
        claims: JsonObject = {}
        hint: str | None = None
        try:
            claims = self.appraiser.claims(quote, self.signed.pck, self.signed.now, _STEP)
        except EvidenceError as error:
            found += error.findings
            hint = error.hint
        if found:
            raise quoted.refused(_STEP, found, hint)
        header = quote.header
        return {
            **claims,
            "header": {
                "version": header.version.hex(),
                "att_key_type": header.att_key_type.hex(),
                # The same bytes have another name in quotes of version 3.
                "att_key_data_0": header.tee_type.hex(),
                "tee_type": header.tee_type.hex(),
                "qe_svn": header.reserved[:2].hex(),
                "pce_svn": header.reserved[2:].hex(),
                "vendor_id": header.vendor_id.hex(),
                "user_data": header.user_data.hex(),
            },
            "body": body.claims(),
            "debug": bool(int.from_bytes(body.flags, "little") & _DEBUG),
            "report_data": body.report_data.hex(),
            "init_data": body.config_id.hex(),
        }
