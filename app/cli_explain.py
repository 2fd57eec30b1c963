"""`sknet explain`: why an image is ranked as it is, as a table, JSON and pictures; by a model loaded here or by a service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.backends import backend_flags, check, service_key
from app.cli_study import form_of, write
from app.image_files import Unreadable, read_file
from app.tables import shown
from app.terminal import settings_from, spare, table

if TYPE_CHECKING:
    from app.explainers import Told, Wanted
    from app.schemas.explain import ExplainAnswer, ScaleJson

TIMEOUT_S = 60.0  # of a service; the first figure starts a process there
_ARM = 14  # characters of a bar, either side of 0
_LIMITS = (0.25, 0.5, 1.0)  # as the figure's axis


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--figure", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Draw everything there: .png, and of a model loaded here also .svg or .pdf.")  # fmt: skip
@click.option("--overlay", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="The image in its own size with the activation map over it, as PNG.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The answer of POST /explain, instead of a table.")
@click.option("--class", "class_name", metavar="NAME", help="Class of the activation map: label, WordNet id or index.")
@click.option("--top-k", "top_k", default=None, metavar="VALUE", help="How many classes to show.  [default: 5]")
@backend_flags
def explain(
    image: Path,
    figure: Path | None,
    overlay: Path | None,
    as_json: bool,
    class_name: str | None,
    top_k: str | None,
    server: str | None,
    key_file: str | None,
    **flags: Any,
) -> None:
    """Say why an image is classified as it is: the kernels that each unit chose, and where a class was seen."""
    form = None if figure is None else form_of(figure)
    check(server, key_file, flags)
    if server is not None and form not in (None, "png"):
        raise click.UsageError(f"a service draws .png only, not .{form}")
    settings = settings_from({**flags, "top_k": top_k})
    for path, option in ((figure, "--figure"), (overlay, "--overlay")):
        spare(path, [image], option)
    from app.explainers import NotExplained, Wanted, here

    try:
        data = read_file(str(image))
    except Unreadable as error:
        raise click.ClickException(f"{image}: {error}") from None
    wanted = Wanted(None if top_k is None else settings.top_k, class_name, form, overlay is not None)
    try:
        told = here(settings, data, wanted) if server is None else _there(server, key_file, data, wanted)
    except NotExplained as error:
        raise click.ClickException(str(error)) from None
    for path, picture in ((figure, told.figure), (overlay, told.overlay)):
        if path is not None:
            write(path, picture)
    click.echo(told.answer.model_dump_json() if as_json else as_text(image, told.answer))


def _there(server: str, key_file: str | None, data: bytes, wanted: Wanted) -> Told:
    from app.client import Client
    from app.explainers import there

    key = service_key(key_file)
    try:
        return there(lambda: Client(server, key=key, timeout_s=TIMEOUT_S), data, wanted)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def as_text(image: Path, answer: ExplainAnswer) -> str:
    """The whole answer for people, in plain characters: nothing in it moves the cursor of a terminal."""
    what, activation = answer.image, answer.class_activation
    ranking = [(shown(each.label), f"{each.score:.4f}", "=" * round(20 * each.score)) for each in answer.predictions]
    mean = activation.logit - activation.bias
    said = "comparable to the paper" if answer.comparable_to_paper else "NOT comparable to the paper"
    return "\n".join(
        (
            shown(f"{image}: {what.width} x {what.height} {what.format}, {answer.model.variant}"),
            "",
            table(ranking, widths=(24, 6)),
            "",
            f"evidence for {shown(activation.label)}: logit {activation.logit:.4f} = mean of its map {mean:.4f} "
            f"{'+' if activation.bias >= 0 else '-'} bias {abs(activation.bias):.4f}",
            "",
            attention_table(answer.scale_sweep),
            "",
            f"{said}: {shown(answer.comparable_reason)}",
        )
    )


def attention_table(scales: Sequence[ScaleJson]) -> str:
    """Each unit's attention difference at each scale, and as a bar at the first, on a line that is not fitted to the values."""
    lines = list(zip(*(scale.kernel_attention for scale in scales), strict=True))
    largest = max(abs(unit.attention_difference) for line in lines for unit in line)
    limit = next(limit for limit in _LIMITS if largest <= limit or limit == _LIMITS[-1])
    sizes = lines[0][0].kernel_sizes
    many = len(sizes) > 2
    axis = f"-{limit:g}".ljust(_ARM) + "0" + f"+{limit:g}".rjust(_ARM)
    head = ("UNIT", *(f"{scale.scale:.1f}x" for scale in scales), axis, *(("MEAN SIZE",) if many else ()))
    rows = [head]
    for line in lines:
        numbers = [f"{unit.attention_difference:+.4f}" for unit in line]
        more = (f"{line[0].mean_kernel_size:.3f}",) if many else ()
        rows.append((shown(line[0].unit), *numbers, bar(line[0].attention_difference / limit), *more))
    return f"share of {sizes[-1]}x{sizes[-1]} less {sizes[0]}x{sizes[0]}, with the centre enlarged\n{table(rows)}"


def bar(part: float) -> str:
    """A number from -1 to 1 as characters left or right of a middle."""
    length = min(_ARM, round(abs(part) * _ARM))
    left, right = (" " * _ARM, "=" * length) if part >= 0 else (("=" * length).rjust(_ARM), "")
    return f"{left}|{right.ljust(_ARM)}"
