# SPDX-License-Identifier: Apache-2.0
"""What a VM with a disk for init data is told: pure function of the plan.

The host writes it, so a guest believes none of it; but it is measured, so that a KBS sees
what the guest was told. It travels in the clear: the host reads it, a client key in it too.

Which members there are, and what each says: :mod:`cocos.wire.vm_init_data`.
"""

import ipaddress
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cocos.manager.plan import VmPlan
from cocos.wire import env_file, init_data, vm_init_data
from cocos.wire.address import parse_address

HOST_ADDRESS = "10.0.2.2"
"""Where QEMU's user networking shows the host's loopback to a guest."""

_LOOPBACK = ("localhost", "127.0.0.1")  # an image reference cannot have IPv6 addresses


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """Init data of a VM.

    Attributes:
        text: The TOML text; holds what the host may know, but logs must not.
        rewritten: What of the request had to be changed, as sentences for the log.
    """

    text: bytes = field(repr=False)
    rewritten: tuple[str, ...]


def guest_config(vm_id: str, plan: VmPlan, *, authorized_keys: str = "") -> GuestConfig:
    """Return what to tell a VM behind QEMU's user networking.

    Raises:
        FormatError: it would say something that the image refuses, such as a fact twice.
    """
    rewritten: list[str] = []
    cvms = parse_address(plan.cvms, what="the CVMS", default_port=0)
    if is_loopback(cvms.host):
        rewritten.append(f"the CVMS at {plan.cvms} is at {HOST_ADDRESS} for the guest")
        cvms = type(cvms)(cvms.scheme, HOST_ADDRESS, cvms.port)
    kbs = guest_url(plan.kbs_params.partition("::")[2])
    if not plan.kbs_params.endswith(kbs):
        rewritten.append(f"the KBS of {plan.kbs_params} is at {kbs} for the guest")
    environment = {**plan.variables, "AGENT_CVM_ID": vm_id, "AGENT_CVM_GRPC_URL": str(cvms)}
    if plan.keep:
        environment["AGENT_ONCE"] = "false"
    files = {
        "authorized_keys": authorized_keys,
        "agent-ca.pem": plan.server_ca.decode("ascii", "replace"),
        "agent-cert.pem": plan.client_cert.decode("ascii", "replace"),
        "agent-key.pem": plan.client_key.decode("ascii", "replace"),
        "registry-ca.pem": plan.registry_ca.decode("ascii", "replace"),
    }
    members = {
        vm_init_data.AGENT_CONFIG: _attestation_agent(kbs, plan.log_level),
        vm_init_data.ENVIRONMENT: env_file.dumps(environment),
        "registries.conf": guest_registries(),
        **{name: text for name, text in files.items() if text},
    }
    vm_init_data.programs(members)  # or the guest would refuse it, minutes from now
    return GuestConfig(init_data.build(members), tuple(rewritten))


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address, IPv6 without brackets, means the machine itself."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guest_url(url: str) -> str:
    """Return a URL as a guest must write it: loopback becomes :data:`HOST_ADDRESS`."""
    parts = urlsplit(url)
    if not is_loopback(parts.hostname or ""):
        return url
    port = "" if parts.port is None else f":{parts.port}"
    return parts._replace(netloc=f"{HOST_ADDRESS}{port}").geturl()


def guest_registries() -> str:
    """Return a registries.conf: loopback means the host, and plain http is for that alone."""
    # A prefix without port matches every port, and the port goes along to the location.
    return "".join(
        f'[[registry]]\nprefix = "{name}"\nlocation = "{HOST_ADDRESS}"\ninsecure = true\n\n'
        for name in _LOOPBACK
    )


def _attestation_agent(kbs: str, log_level: str) -> str:
    tables = [f'[log]\nlevel = "{log_level}"\n', "[eventlog_config]\nenable_eventlog = true\n"]
    if kbs:
        tables.insert(0, f"[token_configs.kbs]\nurl = {json.dumps(kbs)}\n")
    return "\n".join(tables)
