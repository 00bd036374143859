# SPDX-License-Identifier: Apache-2.0
"""Runtime events in the report data of SNP, which has no register for them (ADR 0040).

    REPORT_DATA = SHA-384(SHA-384(log) ‖ report data) ‖ TAG        48 + 16 bytes

The tag tells this form from report data that a caller chose: no attester of ours lets a
caller choose one that ends like that.
"""

import hashlib
from typing import Final

TAG: Final = b"cocos runtime v1"
"""Last bytes of REPORT_DATA: 16."""
_ROOM: Final = 64


def bind(report_data: bytes, log: bytes) -> bytes:
    """Return the 64 bytes of REPORT_DATA that carry ``report_data`` and a log of events.

    Args:
        report_data: Of the session, or what the caller chose.
        log: Entries without a header, every byte of them.
    """
    events = hashlib.sha384(log).digest()
    return hashlib.sha384(events + report_data).digest() + TAG


def mimics(report_data: bytes) -> bool:
    """Tell whether report data that somebody chose would look as if it carried a log."""
    return report_data.ljust(_ROOM, b"\0").endswith(TAG)
