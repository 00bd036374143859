# SPDX-License-Identifier: Apache-2.0
"""Attestation policies: ``<policy id>_<class>``, such as ``default_cpu``."""

import re
from typing import Final

from cocos.policy import defaults
from cocos.policy.documents import Kind
from cocos.policy.engine import PolicyEngine
from cocos.stores.base import Namespace, Store
from cocos.stores.policies import StoredPolicies

POLICY_ID: Final = "default"
"""What is asked for unless a relying party names another; the class comes on top."""

_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-.]{0,127}", re.ASCII)


def attestation_policies(store: Store, engine: PolicyEngine) -> StoredPolicies:
    """Return the attestation policies in a store."""
    return StoredPolicies(
        store,
        Namespace.ATTESTATION_POLICY,
        engine,
        kind=Kind.ATTESTATION,
        defaults={name: defaults.text(name) for name in defaults.ATTESTATION},
        ids=_ID,
        hint="letters, digits, _, - and . are allowed, such as default_cpu",
    )
