# SPDX-License-Identifier: Apache-2.0
"""HTTP ⇄ use cases of the manager: health and metrics."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos import __version__
from cocos.manager.records import VmState
from cocos.manager.service import ManagerService
from cocos.transport import web
from cocos.transport.web import HttpMetrics, WebApp
from cocos.wire import json


def make_app(service: ManagerService, *, instance_id: str) -> WebApp:
    """Return the application with ``/health`` and ``/metrics``."""
    metrics = HttpMetrics("cocos_manager")
    metrics.registry.register(_Vms(service))
    body = json.encode(
        {
            "status": "pass",
            "version": __version__,
            "commit": "",  # the original's field; an installed package does not know its own
            "description": "manager service",
            "build_time": "",
            "instance_id": instance_id,
        }
    )

    async def health(_request: Request) -> Response:
        return Response(body, media_type="application/health+json")

    routes = [
        Route("/health", health),
        Route("/healthz", web.health),
        Route("/metrics", metrics.endpoint),
    ]
    return WebApp(routes, metrics=metrics)


class _Vms(Collector):
    """Counts VMs when somebody asks."""

    def __init__(self, service: ManagerService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        now = Counter(record.state for record in self._service.vms())
        vms = GaugeMetricFamily("cocos_manager_vms", "VMs by state", labels=["state"])
        ended = CounterMetricFamily(
            "cocos_manager_vms_ended", "VMs that ended, by how", labels=["state"]
        )
        for state in VmState:
            vms.add_metric([state], now[state])
            if not state.live:
                ended.add_metric([state], self._service.ended[state])
        yield vms
        yield ended
