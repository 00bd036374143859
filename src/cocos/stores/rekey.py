# SPDX-License-Identifier: Apache-2.0
"""Seals a storage anew with a new key, while key brokers serve from it.

From the moment the new key is current no database lets anybody write with another one, so
one pass over all records is enough. A pass that was interrupted is taken up by the next.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cocos.stores.base import Namespace
from cocos.stores.opening import Storage
from cocos.wire.audit import Entry

_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What a rotation did.

    Attributes:
        key_id: Of the new key.
        records: How many were sealed anew.
    """

    key_id: str
    records: int


async def rekey(storage: Storage, progress: Callable[[int, int], None]) -> Rekeyed:
    """Make a new key, seal every record with it, and retire the keys before it.

    Args:
        storage: Open, with the root key that is to wrap the new key first.
        progress: Told how many records are done, and how many there are.

    Raises:
        InternalError: a record that somebody has changed; everything else is as before or
            sealed anew, and the old key stays until this is called again.
    """
    await storage.keyring.begin_rotation()
    key_id = storage.keyring.current.id.hex()
    await storage.audit.append(Entry("rekeyed", key=key_id))
    places = [
        (namespace, name) for namespace in Namespace for name in await storage.store.keys(namespace)
    ]
    done = changed = 0
    while some := places[done : done + _AT_ONCE]:
        resealing = (storage.store.reseal(*place) for place in some)
        for outcome in await asyncio.gather(*resealing, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            changed += outcome
        done += len(some)
        progress(done, len(places))
    await storage.keyring.end_rotation()
    return Rekeyed(key_id, changed)
