# SPDX-License-Identifier: Apache-2.0
"""Whether a key broker traces, which it does when OpenTelemetry's own variables say where to."""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from cocos.transport.tracing import Tracing

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_DISABLED: Final = "OTEL_SDK_DISABLED"

STORE: Final = {
    name: f"store.{name}" for name in ("get", "put", "put_new", "replace", "delete", "keys")
}
POLICY: Final = {"evaluate": "policy.evaluate"}
APPRAISAL: Final = {"appraise": "attestation.appraise"}

T = TypeVar("T")


def traced(
    tracing: "Tracing | None", inner: T, names: dict[str, str], *, first: str | None = None
) -> T:
    """Return ``inner``, with spans around calls if there is tracing; see Tracing.calls."""
    return tracing.calls(inner, names, first=first) if tracing else inner


@contextlib.asynccontextmanager
async def tracing(service: str) -> AsyncIterator["Tracing | None"]:
    """Have traces sent while the block runs, if the environment says where to."""
    disabled = os.environ.get(_DISABLED, "").lower() == "true"
    if disabled or not any(os.environ.get(name) for name in _ENDPOINTS):
        yield None
        return
    # Takes longer to load than all that a KBS needs otherwise.
    from cocos.transport import tracing as traces  # noqa: PLC0415

    async with traces.tracing(service) as found:
        yield found
