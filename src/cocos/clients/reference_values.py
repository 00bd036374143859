# SPDX-License-Identifier: Apache-2.0
"""A change of a reference value that others may change at the same time."""

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

from cocos.clients.kbs_admin import KbsAdmin
from cocos.errors import NotFoundError, StateError

TRIES: Final = 16


async def change(
    admin: KbsAdmin, name: str, work: Callable[[Any], Any], expires: dt.datetime | None = None
) -> Any:
    """Change one reference value as if nobody else did, and return what it is then.

    Args:
        admin: Of the KBS.
        name: Of the value.
        work: Present value, or None without one → new value; may be asked repeatedly.
        expires: When; in a year without.

    Raises:
        StateError: others change it all the time.
    """
    left = TRIES
    while True:
        present, condition = await admin.find_reference_value(name)
        value, left = work(present), left - 1
        try:
            await admin.set_reference_value(name, value, expires=expires, headers=condition)
        except StateError:
            if not left:
                raise
        except NotFoundError:
            # Trustee's KBS has no such route, and no conditions either.
            await admin.register_reference_values({name: value})
            return value
        else:
            return value
