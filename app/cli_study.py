"""`sknet study`: the paper's analysis over a folder of photographs, as CSV and as a figure. What it does is in `model.study`."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.terminal import MODEL_FIELDS, progress, say, say_fault, setting_flags, settings_from, spare, table
from model.errors import ModelError

if TYPE_CHECKING:
    from model.study import Study

# Without `preprocess`: a study reads every pixel as the network was trained on.
FIELDS = tuple(name for name in MODEL_FIELDS if name != "preprocess")
_FORMS = ("png", "svg", "pdf")


@click.command()
@click.option("--images", required=True, metavar="DIR", type=click.Path(path_type=Path),
              help="Photographs; sub-folders are classes, and without any the folder is one class.")  # fmt: skip
@click.option("--csv", "csv_file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
              help="Where the numbers go; - for standard output.")  # fmt: skip
@click.option("--figure", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Where the figure goes: .png, .svg or .pdf.")  # fmt: skip
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Files of a class at most, the same ones each time.")
@click.option("--classes", metavar="NAMES", help="Only these sub-folders, with commas between.")
@setting_flags(FIELDS)
def study(images: Path, csv_file: Path | None, figure: Path | None, limit: int | None, classes: str | None, **flags: Any) -> None:
    """The paper's analysis (section 4.4): mean attention difference per class and unit, with the centre enlarged."""
    form = form_of(figure)
    settings = settings_from({**flags, "preprocess": "exact"})
    from app.main import load_model
    from model import plots
    from model import study as studies

    def skipped(path: Path, reason: str) -> None:
        say_fault(str(path), f"skipped: {reason}")

    try:
        if figure is not None:
            plots.require()  # said before minutes of work
        only = [name.strip() for name in classes.split(",") if name.strip()] if classes else []
        found = studies.classes_of(images, limit=limit, only=only)
        if beside := studies.outside(images):
            say(f"{images}: {beside} file{'s' * (beside != 1)} beside its folders left out, in no class", err=True)
        for file, option in ((csv_file, "--csv"), (figure, "--figure")):
            spare(file, (path for each in found for path in each.files), option)
        model = load_model(settings)
        try:
            result = studies.study(model, found, progress=progress, skipped=skipped)
        finally:
            model.close()
    except ModelError as error:
        raise click.ClickException(str(error)) from None
    if csv_file is not None:
        text = io.StringIO()
        studies.write_csv(result, text)
        write(csv_file, text.getvalue().encode())
    if figure is not None:
        from model.study_figure import draw

        write(figure, draw(result, form))
    if str(csv_file) != "-":
        click.echo(summary(result))


def form_of(figure: Path | None) -> str:
    """The form that a file's name asks for. From here on the plotting library is quiet: that it cannot keep a list of fonts in
    a home that is read-only is nobody's concern.

    Raises:
        click.BadParameter: one that there is not.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    form = "png" if figure is None else figure.suffix.lower().lstrip(".")
    if form not in _FORMS:
        raise click.BadParameter(f"{figure}: the name may end in .png, .svg or .pdf")
    return form


def write(path: Path, data: bytes) -> None:
    """Write a file, or to standard output for `-`.

    Raises:
        click.ClickException: it cannot be written.
    """
    try:
        if str(path) == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            path.write_bytes(data)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or type(error).__name__}") from None


def summary(result: Study) -> str:
    """The means over all images, as a table."""
    from model.explain import SCALES
    from model.study import ALL

    columns = [result.of(ALL, scale) for scale in SCALES]
    rows = [("UNIT", *(f"{scale:.1f}x" for scale in SCALES))]
    rows += [(each[0].unit, *(f"{mean.mean_difference:+.4f}" for mean in each)) for each in zip(*columns, strict=True)]
    images, classes = columns[0][0].images, len(result.classes)
    said = "comparable to the paper" if result.comparable_to_paper else "NOT comparable to the paper"
    head = f"mean attention difference over {images} image{'s' * (images != 1)} of {classes} class{'es' * (classes != 1)}"
    return f"{head}\n{table(rows)}\n{said}: {result.reason}"
