# SPDX-License-Identifier: Apache-2.0
"""Client of the manager."""

import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import grpc
from grpc import aio

from cocos.errors import NotFoundError, UnreachableError, UnsupportedError
from cocos.transport.rpc import calling, readable
from cocos.wire._generated import manager_pb2 as pb
from cocos.wire._generated import manager_pb2_grpc as pb_grpc
from cocos.wire.address import parse_address

DEFAULT_URL = "http://localhost:7020"
CALL_SECONDS = 30.0
CREATE_SECONDS = 300.0  # three programs, each with a cold disk
REMOVE_SECONDS = 120.0  # three graceful stops and the deletion of unpacked images

_WHAT = "the manager"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM texts for TLS to the manager: whom to trust, and who we are."""

    ca: bytes
    certificate: bytes | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class CvmSummary:
    """One VM as the manager lists it.

    Attributes:
        id: UUID.
        backend: Kind of VM.
        state: starting, running, done, stopping, ended, stopped, failed, expired or lost.
        forwarded_port: Port of the manager's host that leads to the agent, or empty.
        created: When it was asked for.
        expires: When its time to live is over, if it has one.
        cvms: ``host:port`` that its agent dials.
        reason: Why it ended, if it ended by itself.
        outcome: How its computation ended, as its agent says: completed, failed, or empty.
        problem: What keeps its agent from working now, as that says.
    """

    id: str
    backend: str
    state: str
    forwarded_port: str
    created: dt.datetime
    expires: dt.datetime | None
    cvms: str
    reason: str
    outcome: str
    problem: str

    @property
    def live(self) -> bool:
        """Whether something of it may still run."""
        return self.state in {"starting", "running", "done", "stopping"}

    def to_dict(self) -> dict[str, object]:
        """Return its fields for JSON, times as RFC 3339."""
        return {
            **asdict(self),
            "created": self.created.isoformat(),
            "expires": self.expires.isoformat() if self.expires else None,
        }


class ManagerClient:
    """One manager; an async context manager.

    Every method raises UnreachableError if it does not answer, and else the error of its
    status code.

    Args:
        url: ``http://HOST:7020``, ``https://HOST:7020`` or ``HOST:7020``.
        tls: For TLS; ``https://`` without it trusts the system's certificates.

    Raises:
        FormatError: not such an address.
    """

    def __init__(self, url: str, *, tls: Tls | None = None) -> None:
        address = parse_address(url, what=_WHAT, default_port=7020)
        self._address = str(address)
        self._secure = tls is not None or address.scheme == "https"
        self._tls = tls

    async def __aenter__(self) -> Self:
        # A proxy that the environment names has no business between the two.
        options = [("grpc.enable_http_proxy", 0)]
        if self._secure:
            tls = self._tls
            credentials = (
                grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
                if tls is not None
                else grpc.ssl_channel_credentials()
            )
            self._channel = aio.secure_channel(self._address, credentials, options=options)
        else:
            self._channel = aio.insecure_channel(self._address, options=options)
        self._stub = pb_grpc.ManagerServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def create(self, request: pb.CreateReq) -> pb.CreateRes:
        """Start a VM; returns when its programs run.

        Raises:
            CallerError: the request is wrong.
            StateError: too many VMs, or it did not start.
        """
        return await self._call(self._stub.CreateVm(request, timeout=CREATE_SECONDS))

    async def remove(self, vm_id: str) -> None:
        """End a VM if it runs, and forget it.

        Raises:
            NotFoundError: there is no such VM.
        """
        await self._call(self._stub.RemoveVm(pb.RemoveReq(cvm_id=vm_id), timeout=REMOVE_SECONDS))

    async def info(self, vm_id: str) -> pb.CVMInfoRes:
        """Return what a VM is made of; a manager of ours adds the ``cvm``, see :func:`summary`.

        Raises:
            NotFoundError: there is no such VM.
        """
        return await self._call(self._stub.CVMInfo(pb.CVMInfoReq(id=vm_id), timeout=CALL_SECONDS))

    async def check_followable(self) -> None:
        """Find out, before there is a VM, whether one can be watched until it ends.

        Raises:
            UnsupportedError: the manager has no console or no list to show.
        """
        await self.vms()
        with contextlib.suppress(NotFoundError):
            async for _ in self.logs(str(uuid.UUID(int=0))):
                pass

    async def vms(self) -> list[CvmSummary]:
        """Return the VMs that run or ended by themselves, oldest first."""
        answer = await self._call(self._stub.ListVms(pb.ListReq(), timeout=CALL_SECONDS))
        return [summary(cvm) for cvm in answer.cvms]

    async def logs(self, vm_id: str, *, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield a VM's console; with ``follow`` also what comes until it ends.

        Raises:
            NotFoundError: there is no such VM.
        """
        request = pb.LogsReq(cvm_id=vm_id, follow=follow)
        pieces = self._stub.Logs(request, timeout=None if follow else CALL_SECONDS)
        while True:
            with self._calling():
                piece: Any = await pieces.read()
            if piece is aio.EOF:
                return
            yield readable(piece, self._address, _WHAT).data

    async def _call(self, call: Awaitable[T]) -> T:
        with self._calling():
            answer = await call
        return readable(answer, self._address, _WHAT)

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        try:
            with calling(self._address, _WHAT):
                try:
                    yield
                except grpc.RpcError as error:
                    self._check_known(error)
                    raise
        except UnreachableError as error:
            error.hint = "start it with cocos-manager, or name it with --manager-url"
            raise

    def _check_known(self, error: grpc.RpcError) -> None:
        if isinstance(error, aio.AioRpcError) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise UnsupportedError(
                f"{_WHAT} at {self._address} cannot do this: {error.details() or 'no such method'}",
                hint="managers of the original only create, show (with less to say) and remove "
                "VMs; for the rest use a cocos-manager of ours",
            ) from error


def summary(cvm: pb.Cvm) -> CvmSummary:
    """Return what a manager says of a VM."""
    return CvmSummary(
        id=cvm.id,
        backend=cvm.backend,
        state=cvm.state,
        forwarded_port=cvm.forwarded_port,
        created=cvm.created.ToDatetime(dt.UTC),
        expires=cvm.expires.ToDatetime(dt.UTC) if cvm.HasField("expires") else None,
        cvms=cvm.cvms_url,
        reason=cvm.reason,
        outcome=cvm.outcome,
        problem=cvm.problem,
    )
