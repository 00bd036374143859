# SPDX-License-Identifier: Apache-2.0
"""Trustee's configuration file, from v0.8 to now, as our flat settings.

Every key that a release of Trustee knows is asked for here: honoured, refused with a
reason, or, when it only tunes how Trustee does something, noted as being without effect.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from cocos.errors import ConfigError
from cocos.kbs.settings import trustee_attestation as attestation
from cocos.kbs.settings.table import Flat, Table

MEMORY: Final = "memory:"
_REDIS: Final = "redis://127.0.0.1:6379"
_FOLDER: Final = "/opt/confidential-containers/storage"
_ONE_STORAGE: Final = "everything is kept in one storage"
_LOOP: Final = "requests are served by one event loop"
_RUSTLS: Final = "cipher suites and groups are those of rustls"

_OF_THIS_HOST: Final = frozenset(
    {"Memory", "memory", "LocalFs", "local_fs", "LocalJson", "local_json"}
)
_BACKENDS: Final[Mapping[str, str]] = {
    "Memory": "memory",
    "LocalFs": "local_fs",
    "LocalJson": "local_json",
    "Postgres": "postgres",
    "Redis": "redis",
}


def flatten(
    values: Mapping[str, Any], own: frozenset[str]
) -> tuple[Flat, dict[str, str], list[ConfigError]]:
    """Translate sections and historic names into settings.

    Args:
        values: The file, and over it what environment and command line say.
        own: Names of our settings; as they are, and stronger than sections.

    Returns:
        The settings; name → place in the file, of those that stand in a section; and what is
        unknown, malformed or impossible, each with its place.
    """
    notes: list[str] = []
    problems: list[ConfigError] = []
    root = Table(values, "", notes, problems)
    sections: Flat = {}
    for name, read in _SECTIONS.items():
        if name in root:
            sections |= _given(read(root.table(name)))
    trusted = sections.get("trusted_certs") or sections.get("trusted_jwk_sets")
    if trusted and "attestation" not in sections:
        # Without a section on attestation a KBS of Trustee has none: passports only.
        sections["attestation"] = "none"
    sections = _plugins(root) | sections
    sections |= _storage(root, sections)
    flat = sections | {name: root.unread(name) for name in sorted(own) if name in root}
    root.end()
    places = {
        key: f"{section}.{key}"
        for section, table in values.items()
        if section in _SECTIONS and isinstance(table, dict)
        for key in table
        if key not in values
    }
    return flat | ({"notes": tuple(notes)} if notes else {}), places, problems


def _given(flat: Flat) -> Flat:
    return {name: value for name, value in flat.items() if value is not None}


def _http_server(section: Table) -> Flat:
    flat: Flat = {
        "sockets": section.texts("sockets"),
        "insecure_http": section.flag("insecure_http"),
        "private_key": section.text("private_key"),
        "certificate": section.text("certificate"),
        "payload_request_size": section.number("payload_request_size"),
        "denial_status": section.number("denial_status"),
    }
    profile = section.choice(
        "tls_profile",
        {
            "modern": None,
            "intermediate": None,
            "custom": None,
            "old": "its cipher suites are not safe any more",
        },
    )
    lowest = section.choice("tls_min_version", {"1.2": None, "1.3": None})
    section.choice("tls_max_version", {"1.3": None, "1.2": "TLS 1.3 is never switched off"})
    section.refuse(_RUSTLS, "tls_ciphers", "tls_groups")
    section.without_effect(_LOOP, "worker_count")
    section.end()
    flat["tls_min_version"] = lowest or {"modern": "1.3", "intermediate": "1.2"}.get(profile or "")
    return flat


def _admin(section: Table) -> Flat:
    """Every generation of ``[admin]``."""
    kind = section.choice("type", {"Simple": None, "InsecureAllowAll": None, "DenyAll": None})
    mode = section.choice(
        "authorization_mode",
        {"AuthenticatedAuthorization": None, "InsecureAllowAll": None, "DenyAll": None},
    )
    if kind and mode:
        section.wrong("admin.type and admin.authorization_mode exclude each other")
    _without_choice(section, kind or mode)
    flat: Flat = {
        "auth_public_key": section.text("auth_public_key"),
        "insecure_api": section.flag("insecure_api"),
    }
    if "InsecureAllowAll" in {kind, mode}:
        flat["insecure_api"] = True
    if "DenyAll" in {kind, mode}:
        flat["deny_admin"] = True
    if kind == "Simple":
        flat |= _personas(section)
    if mode == "AuthenticatedAuthorization":
        flat |= _identity_providers(section)
    section.end()
    return flat


def _without_choice(section: Table, decided: str | None) -> None:
    """Pass over what would say otherwise who administers, as Trustee does.

    Not where everybody is let in: whoever names a key as well hardly meant that.
    """
    if decided in {None, "InsecureAllowAll"}:
        return
    others = {"auth_public_key", "insecure_api", "personas", "roles"}
    others |= {"authentication", "authorization"}
    kept = {
        "Simple": {"personas", "roles"},
        "AuthenticatedAuthorization": {"authentication", "authorization"},
    }
    section.without_effect(f"{decided} decides", *sorted(others - kept.get(decided or "", set())))


def _personas(section: Table) -> Flat:
    keys: dict[str, str] = {}
    for persona in section.tables("personas"):
        name = persona.required("id")
        if name in keys:
            persona.wrong(f"{persona.name('id')} is there twice")
        keys[name] = persona.required("public_key_path")
        persona.end()
    if not keys:
        section.wrong("admin.personas needs somebody", "id and public_key_path")
    roles = section.tables("roles")
    rules = [_rule(role, "id") for role in roles]
    return {"auth_public_keys": keys, "access_rules": rules or None}


def _rule(table: Table, role: str) -> Flat:
    rule = {
        "role": table.required(role),
        "allowed_endpoints": table.required("allowed_endpoints"),
    }
    table.end()
    return rule


def _identity_providers(section: Table) -> Flat:
    authentication = section.table("authentication")
    bearer = authentication.table("bearer_jwt")
    providers = []
    for table in bearer.tables("identity_providers"):
        names = ("issuer", "audience", "public_key_uri", "jwk_set_uri")
        provider = {name: table.text(name) for name in names}
        if not provider["public_key_uri"] and not provider["jwk_set_uri"]:
            table.wrong(f"{table.place} needs public_key_uri or jwk_set_uri")
        table.end()
        providers.append({name: value for name, value in provider.items() if value})
    role_claim = bearer.text("role_claim")
    bearer.refuse(
        "keys that come over http:// could be anybody's",
        "insecure_public_key_from_uri",
        unless=(False,),
    )
    bearer.refuse(
        "whoever makes a token would choose its key", "insecure_header_jwk", unless=(False,)
    )
    bearer.end()
    authentication.end()
    authorization = section.table("authorization")
    acl = authorization.table("regex_acl")
    rules = [_rule(table, "role") for table in acl.tables("acls")]
    acl.end()
    authorization.end()
    if not providers:
        section.wrong("admin.authentication.bearer_jwt.identity_providers needs somebody")
    return {"identity_providers": providers, "access_rules": rules, "role_claim": role_claim}


def _storage_backend(section: Table) -> Flat:
    kind = _storage_type(section, "storage_type") or "Memory"
    backends = section.table("backends")
    # Redis may keep the sessions of whatever storage there is.
    unused = {name for name in _BACKENDS.values() if name not in {_BACKENDS[kind], "redis"}}
    backends.without_effect(f"the storage is {kind}", *sorted(unused))
    folder, json_folder = backends.table("local_fs"), backends.table("local_json")
    json_place = json_folder.text("file_dir_path") or json_folder.text("dir_path")
    places = {
        "Memory": MEMORY,
        "LocalFs": folder.text("dir_path") or f"{_FOLDER}/local_fs",
        "LocalJson": json_place or f"{_FOLDER}/local_json",
        "Postgres": _postgres(backends.table("postgres")),
    }
    redis = backends.table("redis")
    redis_url = redis.text("url")
    for table in (folder, json_folder, redis, backends, section):
        table.end()
    if kind == "Redis":
        section.wrong(
            f"{section.name('storage_type')} = 'Redis' is not possible here: it may lose what it "
            "acknowledged",
            'session_storage_type = "Redis" keeps sessions there',
        )
    return {"storage": places.get(kind), "_storage_type": kind, "_redis_url": redis_url}


def _postgres(table: Table) -> str:
    user = quote(table.text("username") or "postgres", safe="")
    password = table.text("password")
    host, port = table.text("host") or "localhost", table.number("port") or 5432
    database = quote(table.text("db") or "postgres", safe="")
    table.end()
    secret = "" if password is None else f":{quote(password, safe='')}"
    host = f"[{host}]" if ":" in host else host
    return f"postgresql://{user}{secret}@{host}:{port}/{database}"


def _storage_type(section: Table, key: str) -> str | None:
    """Take the name of a kind of storage, in either spelling, and return Trustee's first."""
    spellings = {alias: name for name, snake in _BACKENDS.items() for alias in (name, snake)}
    chosen = section.choice(key, dict.fromkeys(spellings))
    return None if chosen is None else spellings[chosen]


def _storage(root: Table, sections: Flat) -> Flat:
    """Settle where things are, once everything that names a place has been read."""
    main, configured = sections.pop("_storage_type", None), sections.pop("_redis_url", None)
    postgres_url, redis_url = root.text("POSTGRES_URL"), root.text("REDIS_URL")
    flat = {"storage": postgres_url} if postgres_url and main == "Postgres" else {}
    for place, chosen in sections.pop("_overrides", {}).items():
        if chosen in _OF_THIS_HOST:
            if chosen not in {main or "Memory", _BACKENDS[main or "Memory"]}:
                root.notes.append(f"{place}: {_ONE_STORAGE}; files of Trustee are not read")
        elif chosen not in {None, main, _BACKENDS.get(main or "")}:
            root.wrong(f"{place} is not possible here: {_ONE_STORAGE}")
    kind = _storage_type(root, "session_storage_type")
    if kind == "Redis":
        flat["session_storage"] = redis_url or configured or _REDIS
    elif kind not in {None, "Memory", main}:
        root.wrong(
            "session_storage_type is not possible here: sessions are kept with everything else, "
            "or in Redis"
        )
    return flat


def _plugins(root: Table) -> Flat:
    flat: Flat = {}
    for plugin in root.tables("plugins"):
        plugin.choice(
            "name",
            {
                "resource": None,
                **dict.fromkeys(
                    ("sample", "nebula-ca", "nebula_ca", "pkcs11", "provisioner", "external"),
                    "of the plugins there is resource only",
                ),
            },
        )
        flat |= _resource_plugin(plugin)
    return flat


def _resource_plugin(plugin: Table) -> Flat:
    """Read where resources are kept; three names of one key, by generation."""
    kinds: dict[str, str | None] = {
        **dict.fromkeys(("kvstorage", "KvStorage", "LocalFs")),
        **dict.fromkeys(
            ("Aliyun", "aliyun", "Aws", "aws", "Gcp", "gcp", "Vault", "vault"),
            "resources are kept in the KBS's own storage",
        ),
    }
    for key in ("storage_backend_type", "backend", "type"):
        plugin.choice(key, kinds)
    folder = plugin.text("dir_path")
    plugin.end()
    return _given({"storage": folder})


def _policy_engine(section: Table) -> Flat:
    flat: Flat = {"resource_policy_file": section.text("policy_path")}
    section.end()
    return flat


_SECTIONS: Final[Mapping[str, Callable[[Table], Flat]]] = {
    # Later ones win: a storage backend over the folders of older generations.
    "repository_config": _resource_plugin,
    "policy_engine_config": _policy_engine,
    "policy_engine": _policy_engine,
    "as_config": attestation.historic,
    "grpc_config": attestation.remote,
    "intel_trust_authority_config": attestation.intel,
    "amber_config": attestation.intel,
    "attestation_token_config": attestation.historic_token,
    "attestation_token": attestation.token,
    "attestation_service": attestation.service,
    "http_server": _http_server,
    "admin": _admin,
    "storage_backend": _storage_backend,
}
