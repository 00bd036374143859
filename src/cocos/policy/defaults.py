# SPDX-License-Identifier: Apache-2.0
"""The policies that hold until an operator stores others.

They stay in the code and are never copied into a store, so that a better default reaches
installations that exist.
"""

import functools
from importlib import resources
from typing import Final

from cocos.errors import NotFoundError

RESOURCE: Final = "resource"
ATTESTATION: Final = ("default_cpu", "default_gpu")

DENY_ALL: Final = """\
package policy

default allow := false
"""
ALLOW_ALL: Final = """\
# Insecure: whoever completes a handshake gets every resource.
package policy

import rego.v1

default allow := false

allow if data.plugin == "resource"
"""


@functools.cache
def text(name: str) -> str:
    """Return the text of a default policy: :data:`RESOURCE` or one of :data:`ATTESTATION`.

    Raises:
        NotFoundError: there is none of that name.
    """
    if name not in {RESOURCE, *ATTESTATION}:
        raise NotFoundError(f"there is no default policy {name!r}")
    return resources.files(__package__).joinpath(f"{name}.rego").read_text("utf-8")
