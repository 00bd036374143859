# SPDX-License-Identifier: Apache-2.0
"""What the host may tell a VM of our image, and where each fact stands.

Every fact has one place, where a policy sees it and from where the program takes it; what
would say it a second time is refused, by the manager that writes init data and by the image
that unpacks it. Members:

``aa.toml``
    Configuration of the attestation agent. Its ``token_configs.kbs`` is the KBS of every
    program, and what it is known by; its ``log.level`` the level of every program's logs.
``agent.env``
    Variables of the agent: those of :data:`VARIABLES`.
``agent-ca.pem``, ``agent-cert.pem``, ``agent-key.pem``
    TLS to the CVMS; they are used if they are there.
``registries.conf``
    Registries on the host's loopback; used if it is there.
``registry-ca.pem``
    CAs that registries may chain to beside the system's; used if it is there, but never where
    credentials are sent.
``authorized_keys``
    Who may log in by SSH; debug images alone have a server for it.
"""

from collections.abc import Mapping
from typing import Any, Final

from cocos.errors import FormatError
from cocos.wire import env_file, toml
from cocos.wire.aa_kbc_params import KBS, of_command_line
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.kbs.protocol import ResourceUri

FOLDER: Final = "/run/cocos"
"""Where the image unpacks the members to, readable by root."""

AGENT_CONFIG: Final = "aa.toml"
ENVIRONMENT: Final = "agent.env"
_FILES: Final = {
    "agent-ca.pem": "AGENT_CVM_GRPC_SERVER_CA_CERTS",
    "agent-cert.pem": "AGENT_CVM_GRPC_CLIENT_CERT",
    "agent-key.pem": "AGENT_CVM_GRPC_CLIENT_KEY",
    "registries.conf": "CONTAINERS_REGISTRIES_CONF",
    "registry-ca.pem": "EXTRA_ROOT_CERTIFICATES",
}
MEMBERS: Final = frozenset({AGENT_CONFIG, ENVIRONMENT, "authorized_keys", *_FILES})
CREDENTIALS: Final = "AUTHENTICATED_REGISTRY_CREDENTIALS_URI"
"""Where the KBS has credentials for private registries; upstream's name of the setting."""
VARIABLES: Final = frozenset(
    {
        "AGENT_CERTS_TOKEN",
        "AGENT_CVM_CA_URL",
        "AGENT_CVM_GRPC_URL",
        "AGENT_CVM_ID",
        CREDENTIALS,
        "AGENT_ONCE",
        "AWS_ACCESS_KEY_ID",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
    }
)
"""What ``agent.env`` may set; with LD_PRELOAD or PATH the host could run its own code."""

_AGENT_MEMBERS: Final = frozenset({"eventlog_config", "log", "token_configs"})
_LEVELS: Final = ("debug", "info", "warning", "error")


def programs(members: Mapping[str, str], *, command_line: str = "") -> dict[str, dict[str, str]]:
    """Check what a VM is told; return the environment of its programs.

    Args:
        members: Name → content.
        command_line: The kernel's.

    Returns:
        ``agent`` and ``keyprovider`` → variables. The attestation agent has none: it reads
        ``aa.toml`` itself.

    Raises:
        FormatError: a member or variable that no program here reads, a value in another than
            its one spelling, or a second source of a fact.
    """
    unknown = sorted(members.keys() - MEMBERS)
    if unknown:
        raise FormatError(f"the init data has members that this image does not know: {unknown}")
    if of_command_line(command_line) is not None:
        raise FormatError(
            f"the kernel's command line names a KBS, for which the init data has {AGENT_CONFIG}"
        )
    told = env_file.loads(members.get(ENVIRONMENT, ""))
    for name in told.keys() - VARIABLES:
        raise FormatError(f"the init data may not set {name!r} in {ENVIRONMENT}")
    credentials = told.get(CREDENTIALS)
    if credentials is not None and str(ResourceUri.parse(credentials)) != credentials:
        raise FormatError(f"{CREDENTIALS} in the init data is not in its one spelling")
    if told.get("AGENT_ONCE", "false") != "false":  # anything else is the image's own way
        raise FormatError("AGENT_ONCE in the init data can only be false")
    shared = _of_agent_config(members.get(AGENT_CONFIG, ""))
    files = {variable: f"{FOLDER}/{name}" for name, variable in _FILES.items() if name in members}
    return {"agent": {**told, **files, **shared}, "keyprovider": shared}


def _of_agent_config(text: str) -> dict[str, str]:
    """Return what other programs must know of the attestation agent's configuration."""
    try:
        config = toml.loads(text)
    except FormatError as error:
        raise FormatError(f"{AGENT_CONFIG} in the init data is not TOML") from error
    tables = [config, *(config.get(name, {}) for name in _AGENT_MEMBERS)]
    if config.keys() - _AGENT_MEMBERS or not all(isinstance(each, dict) for each in tables):
        raise FormatError(f"{AGENT_CONFIG} in the init data has other tables than its agent knows")
    variables = {}
    address = kbs_of(config)
    if address is not None:
        url = config["token_configs"]["kbs"]["url"]
        if str(KbsAddress.parse(url)) != url:
            raise FormatError("the URL of the KBS in the init data is not in its one spelling")
        variables["AA_KBC_PARAMS"] = f"{KBS}::{address}"
    _check_certificate(config.get("token_configs", {}).get("coco_as", {}))
    level = config.get("log", {}).get("level")
    if level is not None:
        if level not in _LEVELS:
            raise FormatError(f"log.level in {AGENT_CONFIG} is none of {', '.join(_LEVELS)}")
        variables |= dict.fromkeys(("AGENT_LOG_LEVEL", "COCOS_LOG_LEVEL"), level)
    return variables


def kbs_of(agent_config: Mapping[str, Any]) -> KbsAddress | None:
    """Return the KBS that an attestation agent's configuration names, None for none.

    Raises:
        FormatError: no address, or a file that says what it is known by: nobody would see what
            is in it.
    """
    tables = agent_config.get("token_configs", {})
    table = tables.get("kbs") if isinstance(tables, dict) else None
    if table is None:
        return None
    _check_certificate(table)
    url, ca = table.get("url"), table.get("cert")
    if not isinstance(url, str):
        raise FormatError("the KBS in the init data has no URL")
    address = KbsAddress.parse(url)
    return address if ca is None else address.with_ca(ca)


def kbs_of_data_hub(config: Mapping[str, Any]) -> KbsAddress | None:
    """Return the KBS that a data hub's configuration names, None for none.

    Our image has no data hub; other guests have.

    Raises:
        FormatError: no address.
    """
    table = config.get("kbc")
    if table is None:
        return None
    if not isinstance(table, dict) or not isinstance(table.get("url", ""), str):
        raise FormatError("kbc in the init data is not a table with a URL")
    if table.get("name") != KBS:
        raise FormatError(f"kbc in the init data asks no KBS: its name is not {KBS}")
    ca = table.get("kbs_cert")
    if not table.get("url"):
        return None
    address = KbsAddress.parse(table["url"])
    return address if ca is None else address.with_ca(str(ca))


def _check_certificate(table: object) -> None:
    if not isinstance(table, dict):
        raise FormatError("token_configs in the init data has something else than tables")
    ca = table.get("cert")
    if ca is not None and not (isinstance(ca, str) and "-----BEGIN" in ca):
        raise FormatError("cert in the init data is the text of a certificate, never a file's name")
