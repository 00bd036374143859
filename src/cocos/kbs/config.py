# SPDX-License-Identifier: Apache-2.0
"""Settings of the key broker: its own flat names, and the sections of Trustee's file.

A file may use either; sections are translated to the flat names before validation.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from cocos.errors import ConfigError, problem_of
from cocos.kbs.settings import trustee as trustee_config
from cocos.kbs.settings.table import together
from cocos.transport.http_server import listening
from cocos.transport.tls_files import MAKE, TlsFiles
from cocos.wire.kbs.generations import Generation

DEFAULT_PORT: Final = 8080
BUILTIN: Final = "builtin"
NO_ATTESTATION: Final = "none"
DEFAULT_AUTH_RATE: Final = 30

_BUILTIN_ONLY: Final = (
    "tpm_ek_ca",
    "tpm_vendor_ca",
    "tpm_ek_allow",
    "insecure_allow_sample",
    "insecure_trust_root",
    "corim_keys",
    "insecure_allow_unsigned_corim",
)
MAKERS: Final = ("amd", "intel", "nvidia")
"""Whose places a root for trials can take."""

_SERVERS: Final = ("https://", "http://", "unix:")
_MAKE_CERTIFICATE: Final = (
    f"give --private-key and --certificate; to make a self-signed pair: {MAKE}; or --insecure-http "
    "on a network that you trust"
)
_MAKE_ADMIN: Final = (
    "give --auth-public-key; to make a pair: openssl genpkey -algorithm ed25519 -out "
    "kbs-admin.key && openssl pkey -in kbs-admin.key -pubout -out kbs-admin.pub; or "
    "--insecure-api to let everybody in"
)


def _appraiser(text: str) -> str:
    if text not in {BUILTIN, NO_ATTESTATION} and not text.startswith(_SERVERS):
        raise ValueError(
            f"{text!r} is nobody who could appraise evidence; builtin, https://HOST:PORT, "
            "http://HOST:PORT, unix:/PATH, or none"
        )
    return text


def _pairs(given: object) -> object:
    """Take ``NAME=FILE`` of a command line as a table."""
    if not isinstance(given, list | tuple):
        return given
    pairs = [str(each).partition("=") for each in given]
    if any(not name or not file for name, _, file in pairs):
        raise ValueError("NAME=FILE, such as amd=root.pem")
    if len({name for name, _, _ in pairs}) != len(pairs):
        raise ValueError("there is one root in the place of each maker")
    return {name: file for name, _, file in pairs}


def _makers(roots: dict[str, Path]) -> dict[str, Path]:
    if unknown := roots.keys() - set(MAKERS):
        raise ValueError(f"no maker of processors: {', '.join(unknown)}; {', '.join(MAKERS)}")
    return roots


class AccessRule(BaseModel):
    """Which paths a role may reach, as a regular expression."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    allowed_endpoints: str


class ProviderSettings(BaseModel):
    """An identity provider of administrators.

    Attributes:
        issuer: What ``iss`` of its tokens is; None does not look.
        audience: What ``aud`` must contain; None does not look.
        public_key_uri: Its key as PEM: a file, ``file://`` or ``https://``.
        jwk_set_uri: Its keys as JWK set, or the issuer of OpenID Connect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str | None = None
    audience: str | None = None
    public_key_uri: str | None = None
    jwk_set_uri: str | None = None


class Settings(BaseModel):
    """Settings of one key broker.

    Attributes:
        sockets: Addresses to listen on; port 0 takes a free one.
        insecure_http: Serve plain HTTP.
        certificate: Certificate chain, PEM, leaf first.
        private_key: Its key, PEM, unencrypted.
        tls_min_version: Oldest version of TLS to speak.
        payload_request_size: Largest request body, MiB.
        denial_status: Of the answer when a resource policy says no: 403, or Trustee's 401, after
            which its guests attest anew.
        auth_public_keys: Administrator's name → Ed25519 public key file, PEM.
        insecure_api: Admit everybody as administrator.
        deny_admin: Admit nobody as administrator.
        identity_providers: Whose tokens prove administrators, too; instead of keys.
        role_claim: Where their tokens name roles; dots lead into objects.
        access_rules: What roles may reach; with keys the role is the administrator's name.
            None lets every administrator with a key reach everything.
        insecure_allow_sample: Count sample evidence, which proves nothing, as good.
        sample_extractor: Take reference values of type ``sample``, which nobody has signed.
        corim_keys: Public keys, PEM, of makers whose CoRIMs are taken: EC or Ed25519.
        insecure_allow_unsigned_corim: Take CoRIMs that nobody has signed, too.
        tpm_ek_ca: Files with the CAs of managers, PEM, which vouch for their VMs' TPMs.
        insecure_trust_root: Maker of processors → file of a root that takes its root's place,
            for trials; whoever has its key makes any evidence.
        tpm_vendor_ca: Files with the CAs of TPM vendors, PEM; every certificate in them is
            trusted, for those of their TPMs that are allowed by name.
        tpm_ek_allow: Files with fingerprints of endorsement keys, beside those that are
            allowed as reference value.
        attestation: Who appraises evidence: this process (``builtin``), nobody (``none``), or
            a server: ``https://HOST:PORT``, ``http://HOST:PORT``, ``unix:/PATH``.
        attestation_ca: The CA of that server, PEM; the system's without.
        attestation_certificate: What we show to it, PEM.
        attestation_key: Its key, PEM.
        attestation_token_type: Kind of token; CoCo is the only one.
        token_minutes: Lifetime of a token.
        token_issuer: Claim ``iss`` of tokens.
        token_developer: Developer of the verifier, in tokens.
        token_build: Build of the verifier, in tokens.
        token_profile: Claim ``eat_profile`` of tokens.
        verbose_token: Keep the devices' raw evidence in tokens.
        token_key: Key that signs tokens, PEM; without it one is made and kept.
        token_certificate: Its certificate chain, PEM.
        token_certificate_url: Where its certificate chain is.
        trusted_certs: Files of those who certify other issuers of tokens, PEM.
        trusted_jwk_sets: Keys of other issuers of tokens.
        extra_teekey_paths: JSON pointers to the TEE's key in tokens of others.
        insecure_header_jwk: Believe the key that a token itself names.
        timeout: Lifetime of a session, minutes.
        storage: Folder, database URL, or ``memory:``; None is a folder of the user.
        session_storage: URL of Redis for sessions; None keeps them with the storage.
        storage_key: Where the keys are that open the storage, the present one first; none is
            a file beside it.
        resource_policy_file: What decides on resources until an administrator sets a policy.
        notes: What a configuration file says that has no effect here, and why.
        places: Names of settings → where in a section of the file they stand.
        oldest_protocol: Guests that speak an older one are refused.
        auth_rate: Handshakes per second that one client address may begin; 0 is no limit.
            Requests that are refused for themselves count as such.
        max_open_sessions: Handshakes that may wait for evidence; the oldest give way.
        trusted_proxies: Networks whose X-Forwarded-For is believed, beside loopback.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sockets: tuple[Annotated[str, AfterValidator(listening)], ...] = ()
    insecure_http: bool = False
    certificate: Path | None = None
    private_key: Path | None = None
    tls_min_version: Literal["1.2", "1.3"] = "1.3"
    payload_request_size: int = Field(default=2, ge=1, le=64)
    denial_status: Literal[401, 403] = 403
    auth_public_keys: dict[str, Path] = Field(default_factory=dict)
    insecure_api: bool = False
    deny_admin: bool = False
    identity_providers: tuple[ProviderSettings, ...] = ()
    role_claim: str = "role"
    access_rules: tuple[AccessRule, ...] | None = None
    insecure_allow_sample: bool = False
    insecure_trust_root: Annotated[
        dict[str, Path], BeforeValidator(_pairs), AfterValidator(_makers)
    ] = Field(default_factory=dict)
    sample_extractor: bool = True
    corim_keys: tuple[Path, ...] = ()
    insecure_allow_unsigned_corim: bool = False
    tpm_ek_ca: tuple[Path, ...] = ()
    tpm_vendor_ca: tuple[Path, ...] = ()
    tpm_ek_allow: tuple[Path, ...] = ()
    attestation: Annotated[str, AfterValidator(_appraiser)] = BUILTIN
    attestation_ca: Path | None = None
    attestation_certificate: Path | None = None
    attestation_key: Path | None = None
    attestation_token_type: Literal["CoCo"] = "CoCo"  # noqa: S105 - a kind, no secret
    token_minutes: int = Field(default=5, ge=1, le=24 * 60)
    token_issuer: str | None = None
    token_developer: str | None = None
    token_build: str | None = None
    token_profile: str | None = None
    verbose_token: bool = True
    token_key: Path | None = None
    token_certificate: Path | None = None
    token_certificate_url: str | None = None
    trusted_certs: tuple[Path, ...] = ()
    trusted_jwk_sets: tuple[str, ...] = ()
    extra_teekey_paths: tuple[str, ...] = ()
    insecure_header_jwk: bool = False
    timeout: int = Field(default=5, ge=1, le=24 * 60)
    storage: str | None = Field(default=None, repr=False)
    session_storage: str | None = Field(default=None, repr=False)
    storage_key: tuple[str, ...] = ()
    resource_policy_file: Path | None = None
    notes: tuple[str, ...] = ()
    places: dict[str, str] = Field(default_factory=dict)
    oldest_protocol: Generation = Generation.V0_1_1
    auth_rate: int = Field(default=DEFAULT_AUTH_RATE, ge=0)
    max_open_sessions: int = Field(default=20_000, ge=1)
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _flatten(cls, values: Any, build: ModelWrapValidatorHandler["Settings"]) -> "Settings":
        if not isinstance(values, dict):
            return build(values)
        flat, places, problems = trustee_config.flatten(values, _OWN)
        if (file := flat.pop("auth_public_key", None)) is not None:
            flat["auth_public_keys"] = {"admin": file}
        if isinstance(key := flat.get("storage_key"), str):
            flat["storage_key"] = [key]
        flat["places"] = places
        try:
            settings = build(flat)
        except ValidationError as error:
            for each in error.errors():
                name, *inner = map(str, each["loc"])
                place = ".".join([places.get(name, name), *inner])
                problems.append(ConfigError(f"{place}: {problem_of(each)}"))
                flat.pop(name, None)
            settings = build(flat)
        if problems:
            raise together([*problems, *settings.contradictions()])
        return settings

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
        return TlsFiles(self.certificate, self.private_key, self.tls_min_version)

    def check(self) -> None:
        """Refuse settings that contradict each other or leave a door undecided.

        Raises:
            ConfigError: says which, all at once, and what to do.
        """
        if problems := list(self.contradictions()):
            raise together(problems)

    def contradictions(self) -> Iterator[ConfigError]:
        """Yield what contradicts itself, or leaves a door undecided."""
        files = {"certificate": self.certificate, "private_key": self.private_key}
        given = [name for name, file in files.items() if file is not None]
        if self.insecure_http and given:
            named = " and ".join(map(self._said, given))
            yield ConfigError(f"{self._said('insecure_http')} contradicts {named}")
        if not self.insecure_http and len(given) != len(files):
            yield ConfigError("HTTPS needs a certificate and its key", hint=_MAKE_CERTIFICATE)
        yield from self._about_admins()
        ours = [name for name in _BUILTIN_ONLY if getattr(self, name)]
        if ours and self.attestation != BUILTIN:
            yield ConfigError(
                f"{' and '.join(map(self._said, ours))}: this KBS appraises nothing, so that it "
                "would have no effect",
                hint="tell it to the server that appraises (grpc-as has the same flags)",
            )
        yield from self._about_tokens()

    def _about_admins(self) -> Iterator[ConfigError]:
        one = "auth_public_key" if "auth_public_key" in self.places else "auth_public_keys"
        ways = {
            self._said("insecure_api"): self.insecure_api,
            "DenyAll": self.deny_admin,
            f"an administrator's key ({self._said(one)})": bool(self.auth_public_keys),
            "identity providers": bool(self.identity_providers),
        }
        chosen = [name for name, is_chosen in ways.items() if is_chosen]
        if not chosen:
            yield ConfigError("nobody could administer this KBS", hint=_MAKE_ADMIN)
        if len(chosen) > 1:
            yield ConfigError(f"{' and '.join(chosen)} contradict each other")

    def _about_tokens(self) -> Iterator[ConfigError]:
        if self.token_key is None and (self.token_certificate or self.token_certificate_url):
            yield ConfigError("a token signing certificate needs its key: token_key")
        for pointer in self.extra_teekey_paths:
            if not pointer.startswith("/"):
                yield ConfigError(
                    f"extra_teekey_paths: {pointer!r} is no JSON pointer",
                    hint="such as /customized_claims/runtime_data/tee-pubkey",
                )

    def _said(self, name: str) -> str:
        """Return what a setting is called where it was made: in a section, or by us."""
        return self.places.get(name) or f"{name} (--{name.replace('_', '-')})"


# A single key is the historic way to name one administrator; notes are ours to write.
_OWN: Final = frozenset(Settings.model_fields) - {"notes", "places"} | {"auth_public_key"}
