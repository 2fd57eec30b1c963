"""Commands that make files out of checkpoints: `sknet calibrate | export`. What they do is in `model/`; this asks and tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.terminal import progress, say_fault, setting_flags, settings_from, table
from model.errors import ModelError

if TYPE_CHECKING:
    from app.settings import Settings
    from model.calibrate import Calibration
    from model.graphs import Graph
    from model.manager import LoadRequest
    from model.types import ModelInfo

FIELDS = ("checkpoint", "variant", "labels_file", "checkpoint_sha256", "cache_dir", "threads", "max_pixels")
DEFAULT_COUNT = 300


@click.command()
@click.option(
    "--images",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Photographs like those to be classified, in folders or not; no labels are needed.",
)
@click.option(
    "--count",
    default=DEFAULT_COUNT,
    show_default=True,
    type=click.IntRange(8, 10_000),
    metavar="N",
    help="How many to calibrate over; a quarter as many again is read to compare the answers.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, instead of a table.")
@setting_flags(FIELDS)
def calibrate(images: Path, count: int, as_json: bool, **flags: Any) -> None:
    """Make the int8 graph that SKNET_PRECISION=int8 serves, and say how well it agrees with float32."""
    from model.calibrate import calibrate as make

    settings = settings_from(flags)

    def skipped(path: Path, reason: str) -> None:
        say_fault(str(path), f"skipped: {reason}")

    try:
        made = make(_request(settings), images, most=count, progress=progress, skipped=skipped)
    except ModelError as error:
        raise click.ClickException(str(error)) from None
    _tell(_of_calibration(made), as_json)
    if not as_json:
        click.echo("\nServe it with --precision int8, or SKNET_PRECISION=int8.")


@click.command()
@click.option("--beside", is_flag=True, help="Into the folder of the checkpoint's file, instead of the cache folder.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, instead of a table.")
@setting_flags(FIELDS)
def export(beside: bool, as_json: bool, **flags: Any) -> None:
    """Make the graph of a checkpoint ahead of the first start, which then needs no PyTorch. An existing one is remade."""
    from model.checkpoint import resolve
    from model.export import BESIDE, export_beside
    from model.manager import load
    from model.selection import graph_folder

    settings = settings_from(flags)
    request = _request(settings)
    try:
        checkpoint = resolve(
            request.checkpoint,
            variant=request.variant,
            labels_file=request.labels_file,
            sha256=request.sha256,
            cache_dir=request.cache_dir,
        )
        folder = checkpoint.path.parent / BESIDE if beside else graph_folder(request.cache_dir)
        graph = export_beside(checkpoint, folder)
        # As a service does: it proves the graph, and measures. The pin was held above; this graph is known to be ours.
        model = load(replace(request, sha256=None) if beside else request)
    except ModelError as error:
        raise click.ClickException(str(error)) from None
    model.close()
    _tell(_of_graph(graph, model.info), as_json)


def _request(settings: Settings) -> LoadRequest:
    from app.main import load_request

    return replace(load_request(settings), device="cpu", engine="openvino", precision="auto")


def _of_graph(graph: Graph, info: ModelInfo) -> dict[str, Any]:
    return {
        "checkpoint": info.checkpoint,
        "variant": info.variant,
        "digest": info.digest,
        "graph": str(graph.path),
        "bytes": graph.bytes,
        "note": graph.note,
        "precision": info.dtype.value,
        "deviation_at_warm_up": info.deviation,
        "images_per_second": info.images_per_second,
        "threads": int(info.threads.value),
    }


def _of_calibration(made: Calibration) -> dict[str, Any]:
    return {
        **_of_graph(made.graph, made.info),
        "images": made.images,
        "compared_images": made.kept_out,
        "top1_agreement": made.agreement,
        "deviation": made.deviation,
    }


def _tell(found: Mapping[str, Any], as_json: bool) -> None:
    click.echo(json.dumps(found, indent=2) if as_json else table(_rows(found)))


def _rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    threads = f"{found['threads']} thread{'' if found['threads'] == 1 else 's'}"
    rows = [
        ("checkpoint", f"{found['checkpoint']} ({found['variant']})"),
        ("graph", found["graph"]),
        ("made", found["note"]),
        ("size", f"{found['bytes'] / 1e6:.1f} MB"),
        ("runs in", found["precision"]),
        ("speed", f"{found['images_per_second']:.0f} images/s here, the engine alone, {threads}"),
        ("at warm-up", f"logits deviate from float32 by {100 * found['deviation_at_warm_up']:.2f} %"),
    ]
    if "images" in found:
        seen = f"over {found['compared_images']} images that it was not calibrated on"
        rows += [
            ("first class", f"the same as in float32 for {100 * found['top1_agreement']:.1f} % {seen}"),
            ("logits", f"deviate from float32 by {100 * found['deviation']:.2f} % {seen}"),
        ]
    return rows
