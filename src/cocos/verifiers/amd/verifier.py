# SPDX-License-Identifier: Apache-2.0
"""What verifiers of SNP reports are made of."""

from cocos._clock import Clock
from cocos.verifiers._base import Verifier
from cocos.verifiers.amd.authorities import Authorities
from cocos.verifiers.collateral import Collateral, Held


class AmdVerifier(Verifier):
    """Checks reports that lead to AMD's root.

    Args:
        authorities: Who certifies processors; AMD's alone by default.
        collateral: Certificates of chips, for evidence that comes without; revocation lists.
        clock: For the validity of certificates.
    """

    def __init__(
        self,
        authorities: Authorities | None = None,
        collateral: Collateral | None = None,
        *,
        clock: Clock,
    ) -> None:
        self._authorities = authorities or Authorities()
        self._collateral = collateral or Held()
        self._clock = clock
        self.insecure = self._authorities.insecure
