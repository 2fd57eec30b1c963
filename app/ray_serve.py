"""Ray Serve's way in: `serve run app.ray_serve:app`, or `deploy/ray/serve.yaml`.

`app` builds an application of one deployment, whose replicas are `app.ray_replica.Replica`. Settings are those of the
environment where it is built; what is said here is how many replicas there are, and what each gets. Nothing batches here: the
classifier does, or its engine does better without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.ray_replica import Replica
from app.settings import SpanVariables, is_secret, load_settings, prepare_ray, unknown_variables

if TYPE_CHECKING:
    from ray.serve import Application

NAME = "sknet"  # of the deployment, in a configuration file
ANSWERS = "app.ray_proxy.middlewares"
CHECK_S = 2.0  # between two health checks; three failed ones replace a replica
CHECK_TIMEOUT_S = 10.0  # the event loop is never blocked for so long
SPARE_S = 5.0  # for freeing the model, after requests were finished


class Options(BaseModel):
    """What `serve run app.ray_serve:app NAME=VALUE ...` and `args` in a configuration file may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: float = Field(1.0, gt=0, description="Processors of a replica: so many threads has its engine.")
    gpus: float = Field(0.0, ge=0, le=1, description="GPU of a replica, or the part of one, such as 0.25.")
    min_replicas: int = Field(1, ge=1, description="Replicas without load.")
    max_replicas: int = Field(4, ge=1, description="Most replicas.")
    target_ongoing_requests: float = Field(
        4.0, gt=0, description="Requests in a replica, running or waiting, that Ray adds and takes away replicas for."
    )
    upscale_delay_s: float = Field(10.0, ge=0, description="Seconds of more load before there are more replicas.")
    downscale_delay_s: float = Field(300.0, ge=0, description="Seconds of less load before there are fewer.")

    @model_validator(mode="after")
    def _ordered(self) -> Options:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}: it may be {self.min_replicas}, which is min_replicas, or more"
            )
        return self


def app(args: Options | dict[str, Any]) -> Application:
    """The application, for Ray to deploy.

    Raises:
        pydantic.ValidationError: an option that there is not, or out of range.
        SettingsError: the environment's settings cannot be used.
        ImportError: Ray Serve is not installed.
    """
    options = Options.model_validate(args)  # Ray makes no model of it where annotations are text
    settings = load_settings()
    prepare_ray(ANSWERS)
    try:
        from ray import serve
    except ImportError:
        raise ImportError("Ray Serve is not installed: pip install 'sknet-serve[ray]'") from None
    deployment: Any = serve.deployment(  # whose type is that of a decorator
        serve.ingress()(Replica),
        name=NAME,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.target_ongoing_requests,
            "upscale_delay_s": options.upscale_delay_s,
            "downscale_delay_s": options.downscale_delay_s,
        },
        # Room for all that our queue takes, and as many that upload, ask a probe or are being refused: it is the classifier that
        # says no, at once and before the body is read, since it knows its speed and each request's deadline. What waits at
        # Ray's proxies waits unseen by it; that is for the moments without a replica, and as bounded as our queue is.
        max_ongoing_requests=2 * settings.max_queue,
        max_queued_requests=settings.max_queue,
        backpressure_config={"retry_after_s": 1},
        health_check_period_s=CHECK_S,
        health_check_timeout_s=CHECK_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=max(settings.drain_s, settings.deadline_s) + SPARE_S,
        logging_config={"enable_access_log": False},  # a replica's own log has a line for each request
    )
    given = {name: getattr(settings, name) for name in sorted(settings.model_fields_set) if not is_secret(name)}
    made: Application = deployment.bind(
        given,
        keyed=settings.api_keys is not None,
        ignored=unknown_variables(),
        spans=SpanVariables.here() if settings.tracing else SpanVariables(),
    )
    return made
