"""What can be set, and the only reader of the environment: `SKNET_*` variables, frozen once read.

Some have a platform's name as well (`PLATFORM`), which counts where no `SKNET_*` variable says otherwise. Each field's
description is what the README's table and `sknet serve --help` print.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "SKNET_"
CLIENT_KEY = "SKNET_CLIENT_KEY"  # no setting of the service, and not spelt like SKNET_API_KEYS but for one letter
# What Vertex AI calls these settings: https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
PLATFORM = {"port": "AIP_HTTP_PORT", "vertex_health_route": "AIP_HEALTH_ROUTE", "vertex_predict_route": "AIP_PREDICT_ROUTE"}
HOSTS = r"^[A-Za-z0-9_., -]*$"
_DIALECT = "(v2|huggingface|huggingface-root|sagemaker|vertex)"
DIALECTS = rf"^ *({_DIALECT} *(, *{_DIALECT} *)*|none)? *$"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
PORTS = rf"^ *{_PORT} *(, *{_PORT} *)*$"
ROUTE = r"^(/[A-Za-z0-9._~:@-]+)+$"
# The first steps of all paths that are the service's own, those of a protocol where it is on, and the paths that say what a
# health route is asked for.
OWN = frozenset(
    {"classify", "docs", "explain", "favicon.ico", "healthz", "livez", "metrics", "models", "openapi.json"}
    | {"problems", "readyz", "redoc", "static"}
)
OWN_OF = {"v2": {"v2"}, "huggingface": {"hf"}, "sagemaker": {"invocations", "ping"}}
READY = ("/readyz", "/healthz")
PING = "/ping"  # the same with SageMaker on, and a route as any other without

# What a browser sends as `Origin` (RFC 6454, section 6.2), in ASCII; with a path or a slash behind it, it would never match.
_ORIGIN = r"(?i:https?)://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
_ORIGINS = rf"^(\s*(\*|{_ORIGIN}(\s*,\s*{_ORIGIN})*)\s*)?$"


class SettingsError(ValueError):
    """Settings that cannot be used; the text is one line a fault and names the variable."""


class Settings(BaseSettings):
    """Every setting of the service, with its default."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True, protected_namespaces=()
    )

    # where it listens
    host: Annotated[str, StringConstraints(min_length=1)] = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface (the container's default)."
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes a free one and logs it. Where not given, what `AIP_HTTP_PORT` says.",
    )
    keep_alive_s: int = Field(
        5, ge=1, le=3600, description="Seconds an idle connection is kept open, and that a request's headers may take."
    )
    grace_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which all is served on while `/readyz` says no, so that a proxy notices; 0: none.",
    )
    drain_s: int = Field(20, ge=0, le=3600, description="Seconds that accepted requests have to finish after that.")
    max_connections: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Most open connections of a process; 0: 10,000, or what the limit on open files leaves.",
    )
    max_header_bytes: int = Field(
        65_536, ge=1024, le=16_777_216, description="Most bytes of a request line with its headers, and of trailers."
    )
    max_headers: int = Field(256, ge=16, le=100_000, description="Most headers of a request.")

    # who may ask
    api_keys: SecretStr | None = Field(
        None,
        description="Keys that open the service, separated by commas: KEY, NAME:SCOPES:KEY or NAME:SCOPES:sha256:HEX; none "
        "leaves it open. No flag, which others could read.",
    )
    api_keys_file: Path | None = Field(None, description="The same in a file, one a line; read again when it changes.")
    open_admin: bool = Field(False, description="Whether admin calls (loading, unloading) are open where there are no keys.")
    rate_limit: float = Field(
        0.0,
        ge=0,
        le=1_000_000,
        description="Requests a second that a key, or without keys a client address, may make; 0: any number.",
    )
    rate_burst: int = Field(20, ge=1, le=1_000_000, description="Requests that may come at once before the rate counts.")
    cors_origins: Annotated[str, StringConstraints(pattern=_ORIGINS)] = Field(
        "", description="Origins whose pages may call the service from a browser, separated by commas; * for all; empty: none."
    )

    # where images may come from
    allow_urls: bool = Field(False, description='Whether {"url": ...} is fetched: http and https, public addresses only.')
    url_hosts: Annotated[str, StringConstraints(pattern=HOSTS)] = Field(
        "", description="The only hosts that are fetched from (.example.org with all below); empty: any."
    )
    url_ports: Annotated[str, StringConstraints(pattern=PORTS)] = Field("80,443", description="Ports that are fetched from.")
    url_redirects: int = Field(3, ge=0, le=20, description="Most redirects followed, each checked like the first address.")
    url_timeout_s: float = Field(5.0, gt=0, le=3600, description="Seconds that fetching an image may take, within the deadline.")

    # which protocols it speaks beside its own
    dialects: Annotated[str, StringConstraints(pattern=DIALECTS)] = Field(
        "v2,huggingface,sagemaker,vertex",
        description="Protocols of others that are answered as well, separated by commas: v2 (Open Inference Protocol), "
        "huggingface, huggingface-root (which takes over `POST /`), sagemaker, vertex; none for none.",
    )
    grpc_port: int = Field(
        0, ge=0, le=65535, description="Port of the Open Inference Protocol over gRPC (with the extra `grpc`); 0: off."
    )

    vertex_health_route: Annotated[str, StringConstraints(pattern=ROUTE)] = Field(
        "/vertex/health", description="Path that Vertex AI asks for readiness; where not given, what `AIP_HEALTH_ROUTE` says."
    )
    vertex_predict_route: Annotated[str, StringConstraints(pattern=ROUTE)] = Field(
        "/vertex/predict", description="Path that Vertex AI sends instances to; where not given, what `AIP_PREDICT_ROUTE` says."
    )

    # what it serves
    checkpoint: Annotated[str, StringConstraints(min_length=1)] = Field(
        "bundled:cifar10",
        description="Weights: bundled:NAME, a file, a folder in the hub layout, hf-hub:ORG/NAME[@REVISION], or a registry name "
        "such as skresnet18.ra_in1k.",
    )
    variant: str | None = Field(None, description="Architecture of a bare weights file; found from its tensors where not given.")
    labels_file: Path | None = Field(None, description="Class names, one a line, for a SKNET_CHECKPOINT that carries none.")
    checkpoint_sha256: Annotated[str, StringConstraints(pattern=r"^(sha256:)?[0-9a-fA-F]{64}$")] | None = Field(
        None, description="The weights file of SKNET_CHECKPOINT must have this SHA-256, or it is not served."
    )
    cache_dir: Path | None = Field(
        None, description="Where downloads and exported graphs are kept; the hub's own cache and ~/.cache/sknet where not given."
    )
    model_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        "default", description="Name of the model in the API."
    )

    model_dir: Path | None = Field(
        None, description="Folder whose files may be loaded by `POST /models/{name}/load`; none where not given."
    )

    # what it runs on
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = Field(
        "auto", description="auto, cpu, cuda or cuda:N."
    )
    engine: Literal["auto", "openvino", "compile", "eager"] = Field(
        "auto", description="What computes: auto takes the fastest that proves itself against the reference, which is eager."
    )
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="Arithmetic of the network; int8 needs what `sknet calibrate` makes."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="Processor threads of the engine, of each worker; 0 takes the container's CPU limit."
    )
    streams: int = Field(0, ge=0, le=1024, description="Images the engine computes side by side; 0 lets the engine decide.")
    batch_size: int = Field(0, ge=0, le=1024, description="Most images in one call of the engine; 0 lets the engine decide.")
    preprocess: Literal["fast", "exact"] = Field(
        "fast", description="fast decodes large JPEGs at reduced size and resizes once; exact is the reference path."
    )
    workers: int = Field(1, ge=1, le=256, description="Processes that serve, with the threads divided among them.")

    # what it answers
    top_k: int = Field(5, ge=1, le=100_000, description="Classes in an answer where the request does not say.")
    result_cache: int = Field(0, ge=0, le=10_000_000, description="Answers remembered by the image's SHA-256; 0 remembers none.")

    # what it accepts
    max_body_bytes: int = Field(20_000_000, ge=1, description="Largest body of a request, and largest image of a batch.")
    max_batch_body_bytes: int = Field(100_000_000, ge=1, description="Largest body of a batch.")
    max_buffered_bytes: int = Field(400_000_000, ge=1, description="Most bytes of all bodies in flight together.")
    max_pixels: int = Field(50_000_000, ge=1, description="Most pixels of an image, read from its header before decoding.")
    max_side: int = Field(65_535, ge=1, le=1_000_000, description="Most pixels of an image's longer side.")
    max_frames: int = Field(1000, ge=1, le=1_000_000, description="Most frames of an image; only the first one is decoded.")
    max_metadata_bytes: int = Field(
        4_000_000,
        ge=65_536,
        le=1_000_000_000,
        description="Most bytes of an image's EXIF data, ICC profile, and texts in a PNG.",
    )
    decode_s: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="Seconds of processor time that an image may take in the guarded process, and twice that by the clock.",
    )
    decode_memory_bytes: int = Field(
        1_500_000_000,
        ge=250_000_000,
        description="Address space of the guarded process that decodes what is not JPEG, PNG or WebP.",
    )
    max_images: int = Field(32, ge=1, le=10_000, description="Most images in a batch request.")
    max_queue: int = Field(256, ge=1, description="Most images admitted at once; the rest is told when to come back.")
    deadline_s: float = Field(10.0, gt=0, le=3600, description="Seconds a request may take, its upload included.")

    stuck_s: float = Field(
        8.0, gt=0, le=3600, description="Seconds after which a call of the engine counts as stuck, and the model is loaded anew."
    )

    # what it says
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto is console on a terminal, else json.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line that is logged.")
    tracing: bool = Field(
        False,
        description="Whether spans are sent by OpenTelemetry (with the extra `tracing`), where and how its own `OTEL_*` "
        "variables say.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was given, then the variables, then those of a platform."""
        platform = {field: os.environ[name] for field, name in PLATFORM.items() if os.environ.get(name)}
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=platform)


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings out of `overrides` (by field name; None is as good as not given), then the environment, then the defaults.

    Raises:
        SettingsError: a value out of range; names the variable, what it held and what it may hold.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        lines = [_fault(str(fault["loc"][0]), fault["input"], given) for fault in error.errors()]
        raise SettingsError("\n".join(lines)) from None
    for name in ("max_body_bytes", "max_batch_body_bytes"):
        if settings.max_buffered_bytes < getattr(settings, name):  # such a body would be told to come back, for ever
            least = f"a whole number from {getattr(settings, name)} up, which is {PREFIX}{name.upper()}"
            raise SettingsError(_fault("max_buffered_bytes", settings.max_buffered_bytes, given, least))
    _check_vertex_routes(settings, given)
    return settings


def _check_vertex_routes(settings: Settings, given: Mapping[str, Any]) -> None:
    """Whoever takes the path of another route would answer in its place, or never be asked."""
    spoken = speaks(settings)
    if "vertex" not in spoken:
        return
    own = OWN.union(*(steps for name, steps in OWN_OF.items() if name in spoken))
    for field, also in (("vertex_health_route", (*READY, PING)), ("vertex_predict_route", ())):
        route = getattr(settings, field)
        if route.split("/")[1] in own and route not in also:
            free = f"a path that is not the service's own, such as {Settings.model_fields[field].default}"
            raise SettingsError(_fault(field, route, given, f"{', '.join(also)}, or {free}" if also else free))


def speaks(settings: Settings) -> frozenset[str]:
    """The names of the protocols of others that are on."""
    return frozenset(name.strip() for name in settings.dialects.split(",")) - {"", "none"}


def is_given(field: str) -> bool:
    """Whether a variable says what a field is."""
    return _variable(field) is not None


def _variable(field: str) -> str | None:
    own = next((name for name, value in os.environ.items() if name.upper() == PREFIX + field.upper() and value), None)
    platform = PLATFORM.get(field)
    return own or (platform if platform is not None and os.environ.get(platform) else None)


def client_key() -> str | None:
    """The key with which commands call a service, if the environment has one. The service itself reads no such variable."""
    return os.environ.get(CLIENT_KEY) or None


def of_opentelemetry(name: str) -> str:
    """One of the variables `OTEL_*` of OpenTelemetry's library, as it is; empty where not given."""
    return os.environ.get(f"OTEL_{name}", "")


@dataclasses.dataclass(frozen=True, slots=True)
class SpanVariables:
    """The variables `OTEL_*` for a process on another machine: those that are sent, and the names of those that are not.

    Headers are not: they may hold what lets their bearer in.
    """

    sent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kept: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Self:
        """Those of this environment."""
        given = {name: value for name, value in sorted(os.environ.items()) if name.startswith("OTEL_") and value}
        kept = tuple(name for name in given if "HEADERS" in name)
        return cls({name: value for name, value in given.items() if name not in kept}, kept)

    def take(self) -> tuple[str, ...]:
        """Set here what this environment does not say; returns the names that were kept there and are missing here."""
        for name, value in self.sent.items():
            if not os.environ.get(name):
                os.environ[name] = value
        return tuple(name for name in self.kept if not os.environ.get(name))


def unknown_variables() -> tuple[str, ...]:
    """Variables that look like settings and are none: most likely a spelling mistake."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {CLIENT_KEY}
    return tuple(sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known))


def share_metrics(folder: Path) -> None:
    """Tell the metrics library where the processes of one service keep their values together; it reads the environment."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def prepare_ray(answers: str) -> None:
    """Before Ray starts, which reads the environment: no statistics to anybody, and what its proxies call for their middleware.

    What the environment says already holds. A cluster that runs by then has read its own.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", answers)


def environment_without(*fields: str) -> dict[str, str]:
    """The environment for a process that must not find these fields in it."""
    hidden = {PREFIX + field.upper() for field in fields}
    return {name: value for name, value in os.environ.items() if name.upper() not in hidden}


def is_secret(field: str) -> bool:
    """Whether nobody may see it: never printed, and no flag, since every user of a machine can read command lines."""
    return SecretStr in get_args(Settings.model_fields[field].annotation)


def flag(field: str) -> str:
    """The flag of `sknet serve` for a field."""
    return "--" + field.replace("_", "-")


def allowed(field: str) -> str:
    """What a field may hold, in words."""
    schema = Settings.model_json_schema()["properties"][field]
    options = schema.get("anyOf", [schema])
    return " or ".join(_in_words(option) for option in options if option.get("type") != "null")


def _in_words(schema: dict[str, Any]) -> str:
    if schema.get("type") == "boolean":
        return "true or false"
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("pattern") == r"^(auto|cpu|cuda(:\d{1,3})?)$":
        return "auto, cpu, cuda, cuda:N"
    if "pattern" in schema:
        return {
            r"^(sha256:)?[0-9a-fA-F]{64}$": "64 hexadecimal digits",
            r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "1 to 64 letters, digits, dots, dashes or underscores",
            _ORIGINS: "*, or SCHEME://HOST[:PORT] with commas between",
            DIALECTS: "v2, huggingface, huggingface-root, sagemaker, vertex with commas between, or none",
            ROUTE: "a path such as /predict, in letters, digits and . _ ~ : @ -",
            HOSTS: "host names, separated by commas",
            PORTS: "ports from 1 to 65535, separated by commas",
        }[schema["pattern"]]
    kind = {"integer": "a whole number", "number": "a number", "string": "text"}[schema["type"]]
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if low is None:
        return "a path" if schema.get("format") == "path" else kind
    word = "above" if "exclusiveMinimum" in schema else "from"
    return f"{kind} {word} {low}" + (f" to {high}" if high is not None else " up")


def _fault(field: str, value: object, overrides: Mapping[str, Any], words: str | None = None) -> str:
    name = flag(field) if field in overrides else _variable(field) or PREFIX + field.upper()
    shown = "not shown here" if is_secret(field) else repr(str(value)[:200])
    return f"{name} is {shown}: it may be {words or allowed(field)}"
