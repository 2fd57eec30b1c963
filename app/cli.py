"""The command line: `sknet serve | models | health | bench | openapi`, and the commands that have files of their own.

Errors are one line on standard error; exit 1 is for what went wrong, 2 for how it was called. See `app.program`.
"""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli_classify import classify
from app.cli_completion import completion
from app.cli_evaluate import evaluate
from app.cli_explain import explain
from app.cli_keys import keys
from app.cli_models import calibrate, export
from app.cli_study import study
from app.exposure import warnings_of
from app.grpc_port import check_grpc
from app.image_files import Unreadable, read_file
from app.keys import Keys
from app.program import Program
from app.settings import Settings, SettingsError, is_given, unknown_variables
from app.terminal import MODEL_FIELDS, setting_flags, settings_from, table
from app.tracing import check_tracing
from model.errors import ModelError

if TYPE_CHECKING:
    from app.client_results import Readiness

logger = logging.getLogger("sknet.cli")

AS_SERVE_PORT = 8080  # where SageMaker asks an image that it runs as `serve`, and Vertex AI one whose ports nobody gave


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="sknet-serve", prog_name="sknet")
@click.option("--in-image", is_flag=True, hidden=True)
@click.pass_context
def main(context: click.Context, in_image: bool) -> None:
    """Serve a Selective Kernel Network over HTTP, or use it from here."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what a terminal cannot show
    if in_image and context.invoked_subcommand is None:
        context.invoke(serve)  # the image run as it is
    elif in_image and not is_given("port"):
        context.default_map = {"serve": {"port": str(AS_SERVE_PORT)}}
    elif context.invoked_subcommand is None:
        context.fail("Missing command.")


main.add_command(calibrate)
main.add_command(classify)
main.add_command(completion)
main.add_command(evaluate)
main.add_command(explain)
main.add_command(export)
main.add_command(keys)
main.add_command(study)


@main.command()
@setting_flags(Settings.model_fields)
def serve(**flags: Any) -> None:
    """Serve a model over HTTP. Every flag is also a variable: --top-k is SKNET_TOP_K. Keys (SKNET_API_KEYS) are no flag."""
    settings = settings_from(flags)
    try:
        known = Keys.of(settings)
        check_grpc(settings)
        check_tracing(settings)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    # As process 1 of a container nothing else makes these end the process while the modules below are imported.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    from app.hangup import hold_back
    from app.logs import configure, last_word

    hold_back()
    configure(settings.log_format, settings.log_level)
    for name in unknown_variables():
        logger.warning("%s is no setting and is ignored; see sknet serve --help", name)
    for warning in warnings_of(settings, known):  # once, however many processes serve
        logger.warning("%s", warning)
    if settings.workers > 1:
        from app.workers import supervise

        failure = supervise(settings, {name: value for name, value in flags.items() if value is not None})
    else:
        from app.process import serve as serve_here

        try:
            failure = serve_here(settings)
        except SettingsError as error:  # found late: what it needs is only read when it is made
            failure = str(error)
    if failure is not None:
        last_word(f"Error: {failure}")
        sys.exit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON, instead of a table.")
def models(as_json: bool) -> None:
    """List the architectures, and the weights that are known by name."""
    from model.checkpoint import bundled_names
    from model.registry import VARIANTS, WEIGHTS

    if as_json:
        click.echo(
            json.dumps(
                {
                    "variants": [{k: v for k, v in asdict(v).items() if k != "arguments"} for v in VARIANTS.values()],
                    "weights": [asdict(w) for w in WEIGHTS.values()],
                    "bundled": list(bundled_names()),
                },
                indent=2,
            )
        )
        return
    click.echo("Bundled weights (--checkpoint bundled:NAME)")
    click.echo(table([(name,) for name in bundled_names()], indent=2))
    click.echo("\nPublished weights (--checkpoint NAME, fetched once from the hub)")
    rows = [(w.name, f"{w.top1:.3f} / {w.top5:.3f}", w.licence) for w in WEIGHTS.values()]
    click.echo(table([("NAME", "TOP-1 / TOP-5 %", "LICENCE"), *rows], indent=2))
    click.echo("\nArchitectures (--variant NAME)")
    archs = [(v.name, f"{v.parameters:,}", f"{v.gmacs:.3f}", ", ".join(v.aliases)) for v in VARIANTS.values()]
    click.echo(table([("NAME", "PARAMETERS", "GMACS", "ALSO"), *archs], indent=2))


@main.command()
@click.option("--url", default=None, metavar="URL", help="Address of the service; by default the one the settings name.")
@click.option(
    "--timeout-s",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0, 86_400, min_open=True),
    help="Seconds to wait for the answer.",
)
def health(url: str | None, timeout_s: float) -> None:
    """Ask a running service whether it is ready; exit 0 if it is."""
    import asyncio

    from app.client_async import AsyncClient
    from app.client_errors import ClientError

    addresses = [url] if url is not None else _addresses(in_image=click.get_current_context().find_root().params["in_image"])

    async def ask(address: str) -> Readiness:
        # Not by `Client`: only here the time is that of the whole answer. No proxy of the environment, by default: the question
        # is about this machine.
        async with AsyncClient(address, timeout_s=timeout_s) as client:
            return await client.ready()

    for address in addresses:
        try:
            ready = asyncio.run(ask(address))
            break
        except (ClientError, ValueError):
            continue
    else:
        raise click.ClickException(f"no SKNet service answers at {' or '.join(addresses)}")
    if not ready:
        raise click.ClickException("not ready: " + "; ".join(ready.reasons))
    click.echo("ready")


def _addresses(*, in_image: bool) -> list[str]:
    """Where the service of the settings may be. In the image nothing but its command tells the port where no variable does."""
    settings = settings_from({})
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    ports = [settings.port, AS_SERVE_PORT] if in_image and not is_given("port") else [settings.port]
    return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for port in ports]


@main.command()
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--seconds", default=3.0, show_default=True, help="Seconds of each measurement.")
@click.option("--connections", default="1,2,4,8,16,32,64", show_default=True, help="Clients at once, one measurement each.")
@setting_flags((*MODEL_FIELDS, "batch_size", "workers"))
def bench(images: tuple[Path, ...], seconds: float, connections: str, **flags: Any) -> None:
    """Measure this machine and recommend settings; the last line is JSON. IMAGES are sent, else one that is made here."""
    settings = settings_from(flags)
    counts = [int(count) for count in connections.split(",") if count.strip().isdecimal() and int(count) > 0]
    if not counts or len(counts) != len(connections.split(",")):
        raise click.BadParameter(f"{connections!r}: whole numbers from 1 up, with commas between", param_hint="--connections")
    from app.bench.load import LoadError
    from app.bench.process import ServiceError
    from app.bench.run import bench as measure
    from app.main import load_model

    try:
        data = [_image(path) for path in images]
        result = measure(settings, load_model, data, seconds, counts, lambda line: click.echo(line, err=True))
    except (ModelError, ServiceError, LoadError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n\n".join(result.text))
    click.echo(json.dumps(result.figures))


def _image(path: Path) -> bytes:
    try:
        return read_file(str(path))
    except Unreadable as error:
        raise click.ClickException(f"{path}: {error}") from None


@main.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from app.main import create_app

    without = {"api_keys": None, "api_keys_file": None, "tracing": False, "grpc_port": 0}  # it says the same
    settings = settings_from({}).model_copy(update=without)
    click.echo(json.dumps(create_app(settings).openapi(), indent=2))


if __name__ == "__main__":
    main()
