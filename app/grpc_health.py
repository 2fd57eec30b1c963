"""The health service of gRPC itself, which Kubernetes' probes and load balancers ask. Knows no server.

Source: the gRPC Health Checking Protocol, version 1. `Watch` is not there, which its clients take as "do not check".
"""

from __future__ import annotations

from typing import Any

from app.classifier import Classifier
from app.context import RequestContext
from app.errors import ModelNotFound
from app.grpc_calls import Method
from app.stubs import health_pb2 as pb

SERVICE = "grpc.health.v1.Health"
LIVE = "liveness"  # a name of ours, for a probe that must not fail while the model loads


class Health:
    """Whether a service of this server is ready: all of them are while the model is.

    Args:
        classifier: is ready or not. known: names of the services, and of the model.
    """

    def __init__(self, classifier: Classifier, known: tuple[str, ...]) -> None:
        self._classifier = classifier
        self._known = ("", *known)

    def methods(self) -> list[Method]:
        """Every method. As a probe of HTTP it needs no key."""
        return [Method(f"/{SERVICE}/Check", ("GET", "/readyz"), pb.HealthCheckRequest, self._check)]

    async def _check(self, request: Any, _: RequestContext) -> Any:
        status = pb.HealthCheckResponse.ServingStatus
        if request.service == LIVE:
            return pb.HealthCheckResponse(status=status.SERVING)
        if request.service not in self._known:
            raise ModelNotFound(request.service, [*self._known[1:], LIVE])
        return pb.HealthCheckResponse(status=status.NOT_SERVING if self._classifier.reasons else status.SERVING)
