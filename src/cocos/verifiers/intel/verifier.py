# SPDX-License-Identifier: Apache-2.0
"""What verifiers of quotes are made of."""

from cryptography import x509

from cocos._clock import Clock
from cocos.verifiers._base import Verifier
from cocos.verifiers.collateral import Collateral
from cocos.verifiers.intel.appraisal import Appraiser


class IntelVerifier(Verifier):
    """Checks quotes that lead to Intel's root.

    Args:
        collateral: Where Intel's documents are.
        clock: For the validity of certificates and documents.
        insecure_root: Believed instead of Intel's root, which proves nothing.
    """

    def __init__(
        self,
        collateral: Collateral,
        *,
        clock: Clock,
        insecure_root: x509.Certificate | None = None,
    ) -> None:
        self._appraiser = Appraiser(collateral, insecure_root)
        self._clock = clock
        self.insecure = insecure_root is not None
