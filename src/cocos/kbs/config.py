# SPDX-License-Identifier: Apache-2.0
"""Settings of the key broker: its own flat names, and the sections of Trustee's file.

A file may use either; sections are translated to the flat names before validation. What
Trustee can do and we cannot yet is refused by name, never ignored.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cocos.errors import ConfigError
from cocos.transport.http_server import TlsFiles, split_address

DEFAULT_PORT: Final = 8080

_MAKE_CERTIFICATE: Final = (
    "give --private-key and --certificate; to make a self-signed pair: openssl req -x509 "
    "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -keyout kbs.key -out kbs.crt "
    "-subj /CN=kbs -addext subjectAltName=DNS:localhost,IP:127.0.0.1; or --insecure-http on a "
    "network that you trust"
)
_MAKE_ADMIN: Final = (
    "give --auth-public-key; to make a pair: openssl genpkey -algorithm ed25519 -out "
    "kbs-admin.key && openssl pkey -in kbs-admin.key -pubout -out kbs-admin.pub; or "
    "--insecure-api to let everybody in"
)


class Settings(BaseModel):
    """Settings of one key broker.

    Attributes:
        sockets: Addresses to listen on; port 0 takes a free one.
        insecure_http: Serve plain HTTP.
        certificate: Certificate chain, PEM, leaf first.
        private_key: Its key, PEM, unencrypted.
        payload_request_size: Largest request body, MiB.
        auth_public_keys: Administrator's name → Ed25519 public key file, PEM.
        insecure_api: Admit everybody as administrator.
        deny_admin: Admit nobody as administrator.
        insecure_allow_sample: Count sample evidence, which proves nothing, as good.
        tpm_ek_ca: Files of those who certify endorsement keys of TPMs, PEM; every
            certificate in them is trusted.
        attestation_token_type: Kind of token; CoCo is the only one.
        timeout: Lifetime of a session, minutes.
        storage: Folder or database URL; None is a folder of the user.
        session_storage: URL of Redis for sessions; None keeps them with the storage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sockets: tuple[str, ...] = ()
    insecure_http: bool = False
    certificate: Path | None = None
    private_key: Path | None = None
    payload_request_size: int = Field(default=2, ge=1, le=64)
    auth_public_keys: dict[str, Path] = Field(default_factory=dict)
    insecure_api: bool = False
    deny_admin: bool = False
    insecure_allow_sample: bool = False
    tpm_ek_ca: tuple[Path, ...] = ()
    attestation_token_type: Literal["CoCo"] = "CoCo"  # noqa: S105 - a kind, no secret
    timeout: int = Field(default=5, ge=1, le=24 * 60)
    storage: str | None = Field(default=None, repr=False)
    session_storage: str | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        flat: dict[str, Any] = {}
        for name, value in values.items():
            if name in _SECTIONS:
                flat |= _SECTIONS[name](_Section(name, value))
        # What stands outside of a section (flags do) wins.
        flat |= {name: value for name, value in values.items() if name not in _SECTIONS}
        if (file := flat.pop("auth_public_key", None)) is not None:
            flat["auth_public_keys"] = {"admin": file}
        return flat

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen; without authentication only on loopback unless asked."""
        host = "127.0.0.1" if self.insecure_api else "0.0.0.0"  # noqa: S104 - guests are remote
        return self.sockets or (f"{host}:{DEFAULT_PORT}",)

    @property
    def tls(self) -> TlsFiles | None:
        """Certificate and key, or None for plain HTTP."""
        if self.certificate is None or self.private_key is None:
            return None
        return TlsFiles(self.certificate, self.private_key)

    def check(self) -> None:
        """Refuse settings that contradict each other or leave a door undecided.

        Raises:
            ConfigError: says which, and what to do.
            UsageError: an address does not parse.
        """
        for address in self.addresses:
            split_address(address)
        files = [file for file in (self.certificate, self.private_key) if file is not None]
        if self.insecure_http and files:
            raise ConfigError("--insecure-http contradicts --certificate and --private-key")
        if not self.insecure_http and len(files) != len(("certificate", "private_key")):
            raise ConfigError("HTTPS needs a certificate and its key", hint=_MAKE_CERTIFICATE)
        ways = [self.insecure_api, self.deny_admin, bool(self.auth_public_keys)]
        if not any(ways):
            raise ConfigError("nobody could administer this KBS", hint=_MAKE_ADMIN)
        if sum(ways) > 1:
            raise ConfigError("--insecure-api and an administrator's key contradict each other")


class _Section:
    """A table of Trustee's file, read name by name; what is left over is an error."""

    def __init__(self, name: str, table: object) -> None:
        if not isinstance(table, dict):
            raise ConfigError(f"{name} is not a table")
        self._name = name
        self._left = dict(table)

    def take(self, *names: str) -> dict[str, Any]:
        """Remove and return those of ``names`` that are present."""
        return {name: self._left.pop(name) for name in names if name in self._left}

    def end(self) -> None:
        """Refuse what nobody took."""
        for name in self._left:
            raise ConfigError(f"{self._name}.{name} is not a setting that this KBS knows")

    def only(self, name: str, allowed: str) -> None:
        """Take ``name``, which may have the value ``allowed`` only."""
        value = self.take(name).get(name, allowed)
        if value != allowed:
            raise ConfigError(
                f"{self._name}.{name} = {value!r} is not possible here", hint=f"only {allowed!r}"
            )


def _http_server(section: _Section) -> dict[str, Any]:
    found = section.take(
        "sockets", "insecure_http", "private_key", "certificate", "payload_request_size"
    )
    section.end()
    return found


def _admin(section: _Section) -> dict[str, Any]:
    """Every generation of ``[admin]`` that can be had without an identity provider."""
    found = section.take("auth_public_key", "insecure_api")
    mode = section.take("type", "authorization_mode")
    personas = section.take("personas").get("personas", [])
    section.end()
    for name, value in mode.items():
        if value == "InsecureAllowAll":
            found["insecure_api"] = True
        elif value == "DenyAll":
            found["deny_admin"] = True
        elif not (name == "type" and value == "Simple"):
            raise ConfigError(
                f"admin.{name} = {value!r} is not possible here",
                hint='type = "Simple" with personas, "InsecureAllowAll" or "DenyAll"',
            )
    if personas:
        found["auth_public_keys"] = dict(map(_persona, personas))
    return found


def _persona(persona: object) -> tuple[str, Path]:
    section = _Section("admin.personas", persona)
    found = section.take("id", "public_key_path")
    section.end()
    if len(found) != len(("id", "public_key_path")):
        raise ConfigError("admin.personas needs id and public_key_path")
    return str(found["id"]), Path(str(found["public_key_path"]))


def _attestation_service(section: _Section) -> dict[str, Any]:
    section.only("type", "coco_as_builtin")
    found = section.take("timeout")
    section.end()
    return found


_SECTIONS: Mapping[str, Callable[[_Section], dict[str, Any]]] = {
    "http_server": _http_server,
    "admin": _admin,
    "attestation_service": _attestation_service,
}
