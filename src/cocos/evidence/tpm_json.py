# SPDX-License-Identifier: Apache-2.0
"""JSON around TPM evidence: the evidence, and the members ``tpm`` of the handshake.

All byte strings are standard base64 with padding, unless said otherwise.
"""

import msgspec


class QuoteJson(msgspec.Struct, frozen=True):
    """A quote: TPMT_SIGNATURE, TPMS_ATTEST, and the PCRs' values in hex, from 0 on."""

    signature: str
    message: str
    pcrs: tuple[str, ...]


class Credential(msgspec.Struct, frozen=True):
    """HMAC-SHA256 over the report data, its key the secret that the TPM recovered."""

    proof: str


class TpmEvidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Evidence of kind ``tpm``.

    The first two members are those of the public guest components.

    Attributes:
        tpm_quote: The quote.
        ak_public: Public key of the attestation key, DER SubjectPublicKeyInfo.
        event_log: The firmware's TCG log, as the kernel shows it.
        aael: Events measured at run time, in the records of the attestation agent.
        credential: Proof that the key lives in the TPM of the handshake.
        cmdline: Kernel command line of the unified kernel image, plain text.
    """

    tpm_quote: QuoteJson
    ak_public: str
    event_log: str | None = None
    aael: str | None = None
    credential: Credential | None = None
    cmdline: str | None = None


class TpmParams(msgspec.Struct, frozen=True):
    """Member ``tpm`` of a Request's ``extra-params``.

    Attributes:
        ek_certificate: Of the RSA endorsement key, DER (NV index 0x01c00002).
        ak_public: TPM2B_PUBLIC of the attestation key.
    """

    ek_certificate: str
    ak_public: str


class TpmChallenge(msgspec.Struct, frozen=True):
    """Member ``tpm`` of the Challenge's ``extra-params``, for TPM2_ActivateCredential.

    Attributes:
        credential_blob: TPM2B_ID_OBJECT.
        encrypted_secret: TPM2B_ENCRYPTED_SECRET.
    """

    credential_blob: str
    encrypted_secret: str
