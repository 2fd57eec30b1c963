"""`sknet evaluate`: images in folders named by class -> how often a model, or a service, is right about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.backends import answers, backend, backend_flags
from app.program import WrongCall
from app.tables import shown
from app.terminal import output_to, say, say_fault, spare

if TYPE_CHECKING:
    from app.image_files import Source
    from app.labelled import Labelled
    from model.evaluate import Evaluation
    from model.types import Label


@click.command()
@click.argument("images", metavar="DIR", type=click.Path())
@click.option("--skip-unknown", is_flag=True, help="Leave out folders that are no class of the model.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, instead of a table.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV, a row for each image, instead of a table.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write there, not to standard output.")
@click.option(
    "--confusion",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Draw which class was taken for which: .png, .svg or .pdf.",
)
@backend_flags
def evaluate(
    images: str,
    skip_unknown: bool,
    as_json: bool,
    as_csv: bool,
    output: str | None,
    confusion: str | None,
    server: str | None,
    key_file: str | None,
    **flags: Any,
) -> None:
    """Classify images whose class is known, and say how often it came first, and how often among the first five.

    DIR holds a folder for each class, or is a zip archive of such folders. They are named by label, by one of the words between
    a label's commas, by index or by WordNet id, whatever the case, with spaces, dashes or underscores.

    Exit status: 0 where all were classified, 1 where some images could not be (they are not counted), 2 where the call is
    wrong, 130 where it was interrupted.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv: give one of them")
    _check_picture(confusion)
    start = backend(server, key_file, flags)
    found = _labelled(images)
    for file, option in ((output, "--output"), (confusion, "--confusion")):
        spare(file, _files(images, found), option)
    from app import evaluations
    from model.evaluate import Evaluation

    with ExitStack() as stack:
        model = stack.enter_context(start())
        classes, sources, skipped = _classes(found, model.labels, skip_unknown=skip_unknown)
        counts = Evaluation(len(model.labels))
        write = stack.enter_context(output_to(output))
        each = stack.enter_context(answers(model, sources, k=counts.k))
        if as_csv:
            write(evaluations.csv_head())
        failed = len(found.faults)
        for index, answer in zip(classes, each, strict=True):
            if as_csv:
                write(evaluations.csv_row(index, answer, model.labels))
            if answer.error is None:
                counts.add(index, [p.index for p in answer.predictions])
            else:
                say_fault(answer.name, answer.error)
                failed += 1
        if counts.first.count and not as_csv:
            form = evaluations.json_text if as_json else evaluations.table_text
            write(form(counts, model.labels, model.about, failed=failed, skipped=skipped))
        elif counts.first.count:
            say(evaluations.summary(counts), err=True)
        if confusion is not None and counts.first.count:
            _draw(Path(confusion), counts, model.labels, evaluations.heading(counts, model.about))
    if failed:
        every = len(sources) + len(found.faults)
        raise click.ClickException(f"{failed} of {every} images could not be classified, and are not counted")


def _check_picture(confusion: str | None) -> None:
    """What would fail after an hour's work fails before it."""
    if confusion is None:
        return
    from model.plots import FORMS, require

    if Path(confusion).suffix.lower() not in [f".{form}" for form in FORMS]:
        raise WrongCall(f"--confusion {confusion}: its name may end in .{', .'.join(FORMS)}")
    if not Path(confusion).absolute().parent.is_dir():
        raise WrongCall(f"--confusion {confusion}: there is no such folder")
    require()


def _labelled(images: str) -> Labelled:
    from app.labelled import labelled
    from app.paths import NoImages

    try:
        found = labelled(images)
    except NoImages as error:
        raise WrongCall(str(error)) from None
    for place, why in found.faults:
        say_fault(place, why)
    if found.outside:
        more = f" and {len(found.outside) - 1} more" if len(found.outside) > 1 else ""
        say_fault(f"{found.outside[0]}{more}", "left out, in no folder of a class")
    return found


def _files(images: str, found: Labelled) -> Iterator[str]:
    """What is read, that an output could destroy: the members of an archive are no files."""
    yield images
    if not Path(images).is_file():
        yield from (source.name for inside in found.folders.values() for source in inside)


def _classes(found: Labelled, labels: Sequence[Label], *, skip_unknown: bool) -> tuple[list[int], list[Source], list[str]]:
    """(the class of each image, the images, folders that were left out).

    Raises:
        WrongCall: a folder that is no class, or several.
    """
    from app.paths import NoImages
    from model.classes import AmbiguousClass, Classes, UnknownClass

    names = Classes(labels)
    try:
        folders = found.by(names)
    except NoImages as error:
        raise WrongCall(str(error)) from None
    classes: list[int] = []
    sources: list[Source] = []
    unknown: list[UnknownClass] = []
    for folder, inside in folders.items():
        try:
            index = names.index_of(folder)
        except AmbiguousClass as error:
            raise WrongCall(f"the folder {error}") from None
        except UnknownClass as error:
            unknown.append(error)
            continue
        classes += [index] * len(inside)
        sources += inside
    if unknown and not (skip_unknown and sources):
        more = f"; nor is {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise WrongCall(f"the folder {unknown[0]}{more} (--skip-unknown leaves out what is no class)")
    for each in unknown:
        say_fault(each.name, "left out, no class of this model")
    return classes, sources, [each.name for each in unknown]


def _draw(path: Path, counts: Evaluation, labels: Sequence[Label], title: str) -> None:
    from model.confusion import draw

    path.write_bytes(draw(*counts.confusion(), labels, title, path.suffix.lower().removeprefix(".")))
    say(f"drawn: {shown(str(path))}", err=True)
