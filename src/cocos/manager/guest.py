# SPDX-License-Identifier: Apache-2.0
"""What a VM with a disk for init data is told: pure function of the plan.

The host writes it, so a guest believes none of it; but it is measured, so that a KBS sees
what the guest was told. It travels in the clear: the host reads it, a client key in it too.

Members, each of which the guest puts into ``/run/cocos`` under its name, readable by root:

``aa.toml``
    Configuration of the attestation agent.
``agent.env``
    Environment of the agent, as systemd reads it.
``agent-ca.pem``, ``agent-cert.pem``, ``agent-key.pem``
    TLS to the CVMS, if there is any.
``registries.conf``
    Registries on the host's loopback, which the guest reaches at another address.
``authorized_keys``
    Who may log in by SSH; debug images alone have a server for it.
"""

import ipaddress
import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cocos.manager.plan import VmPlan
from cocos.wire import init_data
from cocos.wire.address import parse_address

HOST_ADDRESS = "10.0.2.2"
"""Where QEMU's user networking shows the host's loopback to a guest."""

FOLDER = "/run/cocos"
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
    """Return what to tell a VM behind QEMU's user networking."""
    rewritten: list[str] = []
    cvms = parse_address(plan.cvms, what="the CVMS", default_port=0)
    if is_loopback(cvms.host):
        rewritten.append(f"the CVMS at {plan.cvms} is at {HOST_ADDRESS} for the guest")
        cvms = type(cvms)(cvms.scheme, HOST_ADDRESS, cvms.port)
    kbs = guest_url(plan.kbs_params.partition("::")[2])
    if not plan.kbs_params.endswith(kbs):
        rewritten.append(f"the KBS of {plan.kbs_params} is at {kbs} for the guest")
    environment = {
        **plan.variables,
        "AGENT_CVM_ID": vm_id,
        "AGENT_CVM_GRPC_URL": str(cvms),
        "AGENT_LOG_LEVEL": plan.log_level,
        "COCOS_LOG_LEVEL": plan.log_level,
        "CONTAINERS_REGISTRIES_CONF": f"{FOLDER}/registries.conf",
    }
    if kbs:
        environment["AA_KBC_PARAMS"] = f"cc_kbc::{kbs}"
    files: dict[str, str] = {}
    if authorized_keys:
        files["authorized_keys"] = authorized_keys
    for name, variable, pem in (
        ("agent-ca.pem", "AGENT_CVM_GRPC_SERVER_CA_CERTS", plan.server_ca),
        ("agent-cert.pem", "AGENT_CVM_GRPC_CLIENT_CERT", plan.client_cert),
        ("agent-key.pem", "AGENT_CVM_GRPC_CLIENT_KEY", plan.client_key),
    ):
        if pem:
            files[name] = pem.decode("ascii", "replace")
            environment[variable] = f"{FOLDER}/{name}"
    members = {
        "aa.toml": _attestation_agent(kbs, plan.log_level),
        "agent.env": "".join(f"{name}={_quoted(value)}\n" for name, value in environment.items()),
        "registries.conf": guest_registries(),
        **files,
    }
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


def _quoted(value: str) -> str:
    """Return a value for systemd's EnvironmentFile=: only these need a backslash in quotes."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
