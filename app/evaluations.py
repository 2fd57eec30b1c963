"""An evaluation as people and programs read it: a table by class, JSON, a CSV row an image. Counts nothing itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.answers import Answer
from app.tables import csv_rows, padded, shortened, shown
from model.evaluate import ClassShare, Evaluation, Share
from model.types import Label

CSV_FIELDS = ("file", "class_index", "class_label", "rank", "index", "label", "wnid", "score", "error")
LABEL = 32  # columns of a label


def summary(counts: Evaluation) -> str:
    """Both figures in lines of their own, each with its interval."""
    lines = [("top-1", counts.first)] + ([(f"top-{counts.k}", counts.among)] if counts.k > 1 else [])
    return "\n".join(f"{name:7}{_percent(share)} %  ({_between(share)})" for name, share in lines)


def heading(counts: Evaluation, about: Mapping[str, str]) -> str:
    """What a picture of it is called."""
    first, images = counts.first, f"{counts.first.count:,} images of {len(counts.classes):,} classes"
    return f"{about['checkpoint']} ({about['variant']})\n{images}, top-1 {100 * first.value:.2f} %"


def table_text(
    counts: Evaluation, labels: Sequence[Label], about: Mapping[str, str], *, failed: int, skipped: Sequence[str]
) -> str:
    """For people: what was asked, both figures, a line for each class."""
    classes = counts.classes
    names = [shortened(shown(labels[each.index].name), LABEL) for each in classes]
    width = max(len("CLASS"), *map(len, names))
    among = f"TOP-{counts.k}" if counts.k > 1 else ""
    left_out = [f"{failed} could not be classified"] * bool(failed) + [f"{len(skipped)} folders left out"] * bool(skipped)
    lines = [
        f"{about['checkpoint']} ({about['variant']}), {about['runs']}",
        "; ".join([f"{counts.first.count} images of {len(classes)} classes", *left_out]),
        "",
        summary(counts),
        "",
        f"{padded('CLASS', width)}  IMAGES   TOP-1  {among:>6}  MOST OFTEN TAKEN FOR",
    ]
    for name, each in zip(names, classes, strict=True):
        second = _percent(each.among) if counts.k > 1 else ""
        row = f"{padded(name, width)}  {each.first.count:6}  {_percent(each.first)}  {second:>6}  {_taken_for(each, labels)}"
        lines.append(row.rstrip())
    return "\n".join(lines) + "\n"


def json_text(
    counts: Evaluation, labels: Sequence[Label], about: Mapping[str, str], *, failed: int, skipped: Sequence[str]
) -> str:
    """For programs; shares are 0 to 1, `top_k` counts the first `k`."""
    found = {
        **about,
        "images": counts.first.count,
        "failed": failed,
        "skipped_folders": list(skipped),
        "k": counts.k,
        "top_1": _share(counts.first),
        "top_k": _share(counts.among),
        "classes": [_class(each, labels) for each in counts.classes],
    }
    return json.dumps(found, indent=2) + "\n"


def csv_head() -> str:
    """The names of the columns."""
    return csv_rows([CSV_FIELDS])


def csv_row(index: int, answer: Answer, labels: Sequence[Label]) -> str:
    """One image: its class, at which rank of the first k that came (empty: not among them), and what came first."""
    known: tuple[object, ...] = (answer.name, index, labels[index].name)
    if answer.error is not None or not answer.predictions:
        return csv_rows([(*known, None, None, None, None, None, answer.error)])
    first = answer.predictions[0]
    rank = next((i for i, p in enumerate(answer.predictions, start=1) if p.index == index), None)
    return csv_rows([(*known, rank, first.index, first.label, first.wnid, first.score, None)])


def _class(each: ClassShare, labels: Sequence[Label]) -> dict[str, Any]:
    other = None
    if each.taken_for is not None:
        other = {"index": each.taken_for[0], "label": labels[each.taken_for[0]].name, "images": each.taken_for[1]}
    label = labels[each.index]
    return {
        "index": each.index,
        "label": label.name,
        "wnid": label.wnid,
        "images": each.first.count,
        "top_1": _share(each.first),
        "top_k": _share(each.among),
        "taken_for": other,
    }


def _share(share: Share) -> dict[str, float]:
    low, high = share.bounds
    return {"share": share.value, "hits": share.hits, "low": low, "high": high}


def _percent(share: Share) -> str:
    return f"{100 * share.value:6.2f}"


def _between(share: Share) -> str:
    low, high = share.bounds
    return f"{share.hits} of {share.count}; 95 % interval {100 * low:.2f} to {100 * high:.2f}"


def _taken_for(each: ClassShare, labels: Sequence[Label]) -> str:
    if each.taken_for is None:
        return "-"
    index, images = each.taken_for
    return f"{shortened(shown(labels[index].name), LABEL)} ({images})"
