"""Kernel attention through HTTP against timm's own network: `python -m benchmarks.kernel_attention --photographs DIR`.

skresnext50_32x4d with seeded weights and randomised statistics, saved under timm's names; the last weights of each unit's
attention are enlarged, so that units differ about as much as trained ones. On one side hooks on timm's network behind timm's own
preprocessing, float32; on the other a real service, `/classify?explain=kernel_attention` image by image, `/classify/batch` with
all at once and the ordinary pass of `/explain`, for every engine and precision that runs here. Told is the largest absolute
difference of a share over units, kernels and photographs; in float32 it must not exceed 1e-6.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from app.bench.process import ServiceError
from benchmarks.agreement import REFERENCE, photographs_in
from benchmarks.agreement import SIDES as OTHERS
from benchmarks.ours import serving, verdicts
from benchmarks.report import publish, table
from model.errors import ModelError
from model.manager import LoadRequest

SIDES = (REFERENCE, ("eager", "bfloat16"), *OTHERS[1:])
VARIANT = "skresnext50_32x4d"
COUNT = 8
BOUND = 1e-6  # of float32
SHARPER = 8  # the units of fresh weights hardly decide: so much more do these
Shares = npt.NDArray[np.float64]  # (N, U, M)


def timms(folder: Path, images: Sequence[bytes]) -> tuple[list[str], Shares, Shares]:
    """Write the weights into `folder`, laid out as timm's on the hub.

    Returns the units' modules, and their shares by hooks: in float32, then in float64.
    """
    import timm
    import torch
    from PIL import Image, ImageOps
    from timm.data.config import resolve_data_config
    from timm.data.transforms_factory import create_transform
    from timm.models import save_for_hf

    from tests.model.timm_parity import randomise_statistics, timm_attention

    torch.manual_seed(0)
    net: Any = timm.create_model(VARIANT).eval()
    randomise_statistics(net)
    with torch.no_grad():
        for name, module in net.named_modules():
            if name.endswith(".attn.fc_select"):
                module.weight.mul_(SHARPER)
    save_for_hf(net, str(folder), model_config={}, safe_serialization=True)
    transform: Any = create_transform(**resolve_data_config(model=net), is_training=False)  # type: ignore[no-untyped-call]
    inputs = []
    for data in images:
        with Image.open(io.BytesIO(data)) as image:
            inputs.append(transform(ImageOps.exif_transpose(image).convert("RGB"))[None])
    found: list[Shares] = []
    for kind in (torch.float32, torch.float64):
        rows, modules = [], list[str]()
        for x in inputs:
            with torch.inference_mode(), timm_attention(net.to(kind)) as seen:
                net(x.to(kind))
            modules = list(seen)
            rows.append([shares[0].mean(1).tolist() for shares in seen.values()])  # (M,) of (B, M, C)
        found.append(np.array(rows))
    return modules, found[0], found[1]


def told(kernel_attention: Sequence[dict[str, Any]], modules: Sequence[str]) -> list[list[float]]:
    """(U, M) out of a response, which must name timm's units in timm's order, with figures that go with the shares."""
    if [unit["module"] for unit in kernel_attention] != list(modules):
        raise SystemExit("the service names other units than timm has")
    for unit in kernel_attention:
        shares, sizes = unit["mean_attention"], unit["kernel_sizes"]
        pairs = [(unit["attention_difference"], shares[-1] - shares[0]), (unit["mean_kernel_size"], float(np.dot(sizes, shares)))]
        if sizes != [3, 5] or any(abs(one - other) > BOUND for one, other in pairs):
            raise SystemExit(f"the figures of a unit do not go together: {unit}")
    return [unit["mean_attention"] for unit in kernel_attention]


def asked(url: str, images: Sequence[bytes], modules: Sequence[str]) -> dict[str, Shares]:
    """What the service tells through each of its routes."""
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:

        def post(path: str, files: Any) -> Any:
            return client.post(path, files=files).raise_for_status().json()

        one = [post("/classify?explain=kernel_attention", {"file": data}) for data in images]
        batch = post("/classify/batch?explain=kernel_attention", [("files", data) for data in images])
        whole = [post("/explain", {"file": data}) for data in images]
    return {
        "classify": np.array([told(answer["kernel_attention"], modules) for answer in one]),
        "batch": np.array([told(answer["kernel_attention"], modules) for answer in batch["results"]]),
        "explain": np.array([told(answer["kernel_attention"], modules) for answer in whole]),
    }


def calibrated(checkpoint: Path, cache: Path, photographs: Path) -> str | None:
    """Make the int8 graph; the reason where that cannot be done."""
    from model.calibrate import calibrate

    def all_of(items: Sequence[Any], _what: str) -> Iterable[Any]:
        return items

    try:
        request = LoadRequest(checkpoint=str(checkpoint), cache_dir=cache)
        calibrate(request, photographs, most=100, progress=all_of, skipped=lambda *_: None)
    except ModelError as error:
        return str(error)
    return None


def compare(
    folder: Path, cache: Path, images: Sequence[bytes], modules: Sequence[str], reference: Shares, not_int8: str | None
) -> list[dict[str, Any]]:
    """A row of figures for every engine and precision."""
    rows: list[dict[str, Any]] = []
    for engine, precision in SIDES:
        row: dict[str, Any] = {"engine": engine, "precision": precision}
        rows.append(row)
        print(f"{engine} {precision}", file=sys.stderr, flush=True)
        if precision == "int8" and not_int8:
            row["missing"] = not_int8
            continue
        chosen = {"engine": engine, "precision": precision, "preprocess": "exact", "cache_dir": cache, "device": "cpu"}
        try:
            with serving(str(folder), **chosen, deadline_s=60, stuck_s=60) as (service, _):
                found = asked(service.url, images, modules)
        except ServiceError as error:
            row["missing"] = str(error).splitlines()[0][:160]
            continue
        row |= {route: float(np.abs(shares - reference).max()) for route, shares in found.items()}
        row["unit"] = modules[int(np.abs(found["classify"] - reference).max((0, 2)).argmax())]
    return rows


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """As a table, what is missing below it."""
    lines = [("", "/classify", "/classify/batch", "/explain", "in unit")]
    for row in rows:
        cells = ["-"] * 4 if "missing" in row else [f"{row[key]:.2e}" for key in ("classify", "batch", "explain")] + [row["unit"]]
        lines.append((f"{row['engine']} {row['precision']}", *cells))
    missing = [f"{row['engine']} {row['precision']}: {row['missing']}" for row in rows if "missing" in row]
    return "\n".join([table(lines), *missing])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel_attention", description=__doc__)
    parser.add_argument(
        "--photographs", type=Path, required=True, help=f"a folder; the first {COUNT} in it and below are asked for"
    )
    parser.add_argument("--output", type=Path, help="folder for the result, such as benchmarks/results")
    args = parser.parse_args()
    images = photographs_in(args.photographs)[:COUNT]
    if len(images) < COUNT:
        parser.error(f"{args.photographs} holds {len(images)} photographs; give {COUNT} or more")
    with tempfile.TemporaryDirectory() as work:
        folder, cache = Path(work) / "checkpoint", Path(work) / "cache"
        modules, reference, exact = timms(folder, images)
        rows = compare(folder, cache, images, modules, reference, calibrated(folder, cache, args.photographs))
    spread = float(np.ptp(reference, 0).max())
    worst = {
        f"{row['engine']} {row['precision']}": max(row[route] for route in ("classify", "batch", "explain"))
        for row in rows
        if "missing" not in row
    }
    checks = {f"{name} is within {BOUND:g} of timm": off <= BOUND for name, off in worst.items() if name.endswith("float32")}
    own = float(np.abs(reference - exact).max())
    text = [
        f"{VARIANT}, {COUNT} photographs, {reference.shape[1]} units of {reference.shape[2]} kernels: shares from "
        f"{reference.min():.3f} to {reference.max():.3f}; between photographs a unit's share moves by up to {spread:.4f}",
        f"largest difference from hooks on timm's network in float32, whose own distance from float64 is {own:.2e}\n",
        shown(rows) + "\n",
        verdicts(checks),
    ]
    figures = {"rows": rows, "spread": spread, "range": [float(reference.min()), float(reference.max())], "timm_float64": own}
    publish("kernel-attention", "Kernel attention through HTTP against timm", "\n".join(text), figures, args.output)
    sys.exit(0 if checks and all(checks.values()) else 1)


if __name__ == "__main__":
    main()
