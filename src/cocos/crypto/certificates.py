# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with certificates that strangers send."""

import warnings
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

# AMD's certificates of processors all have the serial number 0, and users cannot change that.
warnings.filterwarnings("ignore", "Parsed a serial number which wasn't positive")

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises when it reads or checks a malformed one."""
