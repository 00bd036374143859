# SPDX-License-Identifier: Apache-2.0
"""Counters of the key broker; no label ever names a secret."""

import platform
from importlib.metadata import version

from prometheus_client import Counter, Gauge

from cocos.transport.web import HttpMetrics


class KbsMetrics:
    """Trustee's counters, without the resource paths in their labels.

    Attributes:
        http: Counts every request below ``/kbs``; serves all of them.
    """

    def __init__(self) -> None:
        self.http = HttpMetrics("kbs", only_below="/kbs")
        registry = self.http.registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"kbs_{name}", text, labels, registry=registry)

        self.auth_requests = counter("auth_requests", "Handshakes begun")
        self.auth_successes = counter("auth_successes", "Challenges given out")
        self.auth_errors = counter("auth_errors", "Handshakes refused at once")
        self.attestations = counter("attestation_requests", "Evidence received")
        self.attestation_successes = counter(
            "attestation_successes", "Evidence that held", "tee_type"
        )
        self.attestation_failures = counter(
            "attestation_failures", "Evidence that did not hold", "tee_type"
        )
        self.attestation_errors = counter(
            "attestation_errors", "Attestations that failed before or beside the evidence"
        )
        self.policy_evaluations = counter("policy_evaluations", "Resource policy asked")
        self.policy_approvals = counter("policy_approvals", "Resource policy said yes")
        self.policy_violations = counter("policy_violations", "Resource policy said no")
        self.policy_errors = counter("policy_errors", "Resource policy gave no yes or no")
        self.reads = counter("resource_reads", "Resources released")
        self.writes = counter("resource_writes", "Resources stored")
        self.deletes = counter("resource_deletes", "Resources deleted")
        build = Gauge(
            "kbs_build_info", "Always 1", ("version", "python_version"), registry=registry
        )
        build.labels(version("cocos"), platform.python_version()).set(1)
