"""`model.manager`, where it explains: attention and maps of every engine that runs here, and the passes of an explanation."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

from model import export, selection
from model.checkpoint import resolve
from model.engines import proof
from model.errors import EngineError
from model.explain import COMPARABLE
from model.manager import Item, LoadedModel, LoadRequest, Row, load
from model.preprocess import normalise, pixels, quick_pixels, seen
from model.sknet import BLOCKS, SKNet, record_attention, units
from model.types import Box
from tests.images import encode, oriented, photograph
from tests.model.small import write
from tests.model.timm_parity import pair, randomise_statistics, timm_attention

SPEC = {"size": [48, 56]}
ARGUMENTS: dict[str, Any] = {
    "block": "bottleneck",
    "layers": [2, 1],
    "channels": [8, 16],
    "kernel_sizes": [3, 5, 7],
    "stem_type": "small",
    "stem_width": 8,
    "rd_divisor": 8,
    "num_classes": 3,
}
ENGINES = [("eager", "float32"), ("eager", "bfloat16"), ("openvino", "float32"), ("openvino", "bfloat16")]
NAMES = ("chelsea", "astronaut", "coffee")
PNGS = [encode(photograph(name, (120 + 31 * i, 90)), "PNG") for i, name in enumerate(NAMES)]


@pytest.fixture(autouse=True, scope="module")
def threads() -> Iterator[None]:
    """Engines set torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network() -> SKNet:
    """Three kernels, and units that decide: a fresh network's hardly do."""
    torch.manual_seed(3)
    given = {key: value for key, value in ARGUMENTS.items() if key not in ("block", "layers")}
    net = SKNet(BLOCKS["bottleneck"], ARGUMENTS["layers"], **given).eval()
    randomise_statistics(net)
    with torch.no_grad():
        for _, _, unit in units(net):
            unit.attn.fc_select.weight.mul_(4)
    return net


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its graph in the cache, which saves each engine the helper process."""
    folder = tmp_path_factory.mktemp("explained")
    file = write(folder, network().state_dict(), preprocess=SPEC, arguments=ARGUMENTS)
    export.export(resolve(str(file)), selection.graph_folder(folder / "cache"))
    return file


def loaded(file: Path, engine: str = "eager", precision: str = "float32", **more: Any) -> LoadedModel:
    request = {"device": "cpu", "threads": 2, "cache_dir": file.parent / "cache", **more}
    return load(LoadRequest(checkpoint=str(file), engine=engine, precision=precision, **request))


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
def served(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[LoadedModel]:
    model = loaded(checkpoint, *request.param)
    yield model
    model.close()


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Iterator[LoadedModel]:
    model = loaded(checkpoint)
    yield model
    model.close()


def by_hooks(item: Item, model: LoadedModel) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(attention (U, M), features (F, H', W')) of the bare network for one image, in float32."""
    net = network()
    x = torch.from_numpy(normalise(item.pixels, model.info.preprocess)[None])
    with torch.no_grad(), record_attention(net) as found:
        features = net.forward_features(x)
    return torch.stack([found[path][0].mean(1) for _, path, _ in units(net)]).numpy(), features[0].numpy()


def shares(row: Row, model: LoadedModel) -> npt.NDArray[np.float64]:
    return np.array([unit.mean_attention for unit in model.attention(row).units])


# --- one pass ------------------------------------------------------------------------------------------------------------


def test_attention_is_what_hooks_record_on_the_same_pixels(served: LoadedModel) -> None:
    exact = served.info.dtype.value == "float32"
    for data in PNGS:
        item = served.prepare(data)
        (row,) = served.run([item])
        wanted, _ = by_hooks(item, served)
        assert np.ptp(wanted) > 0.05
        assert row.features is None
        off = np.abs(shares(row, served) - wanted).max()
        assert off < (1e-6 if exact else proof.ATTENTION_BOUNDS["bfloat16"])
        told = served.attention(row)
        assert [(u.unit, u.module, u.kernel_sizes, u.channels) for u in told.units] == [
            ("SK_2_1", "layer1.0.conv2", (3, 5, 7), 8),
            ("SK_2_2", "layer1.1.conv2", (3, 5, 7), 8),
            ("SK_3_1", "layer2.0.conv2", (3, 5, 7), 16),
        ]
        assert (told.comparable_to_paper, told.reason) == (True, COMPARABLE)
        for unit, row_wanted in zip(told.units, wanted, strict=True):
            assert unit.attention_difference == pytest.approx(row_wanted[2] - row_wanted[0], abs=2 * off + 1e-7)
            assert unit.mean_kernel_size == pytest.approx(np.dot((3, 5, 7), row_wanted), abs=15 * off + 1e-6)


def test_a_batch_is_its_images_one_by_one_and_features_are_for_those_that_asked(served: LoadedModel) -> None:
    exact = served.info.dtype.value == "float32"
    plain = [served.prepare(data) for data in PNGS]
    items = [plain[0], replace(plain[1], features=True), plain[2]]
    together, alone = served.run(items), [served.run([item])[0] for item in items]
    assert [row.features is not None for row in together] == [False, True, False]
    for one, other in zip(together, alone, strict=True):
        scale = float(np.abs(other.logits).max())
        np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=(1e-5 if exact else 0.03) * scale)
        np.testing.assert_allclose(one.attention, other.attention, rtol=0, atol=1e-6 if exact else 0.01)
    assert float(np.abs(alone[0].attention - alone[1].attention).max()) > 0.002, "rows that could be exchanged unseen"
    features = together[1].features
    assert features is not None
    _, wanted = by_hooks(items[1], served)
    assert features.shape == wanted.shape == (64, 24, 28)
    assert proof.deviation(features, wanted) < (1e-5 if exact else 0.03)


def test_without_who_asks_the_engine_is_not_asked_for_features(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    run = model._engine.run

    def spy(*given: Any, features: bool = False, **more: Any) -> Any:
        asked.append(features)
        return run(*given, features=features, **more)

    monkeypatch.setattr(model._engine, "run", spy)
    items = [model.prepare(data) for data in PNGS]
    model.run(items)
    model.run([*items, replace(items[0], features=True)])
    assert asked == [False, True]


def test_a_copy_of_a_row_keeps_nothing_of_its_batch(model: LoadedModel) -> None:
    items = [replace(model.prepare(data), features=data is PNGS[0]) for data in PNGS]
    first, second, _ = model.run(items)
    for row in (first, second):
        kept = copy.copy(row)
        assert kept.features is None if row.features is None else kept.features is not None
        for field in ("logits", "attention", "features"):
            mine, theirs = getattr(kept, field), getattr(row, field)
            if theirs is None:
                continue
            np.testing.assert_array_equal(mine, theirs)
            assert mine.flags.owndata
            assert mine.base is None
            assert not np.shares_memory(mine, theirs)
        before = shares(kept, model)
        row.attention[:] = 0
        np.testing.assert_array_equal(shares(kept, model), before)


def test_kernel_attention_is_timms(tmp_path: Path) -> None:
    """timm's network, and its weights under timm's own names; a small input keeps it quick."""
    theirs, _ = pair("skresnext50_32x4d")
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "skresnext50_32x4d", "pretrained_cfg": {"input_size": [3, 96, 80]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load(LoadRequest(checkpoint=str(tmp_path), engine="eager", device="cpu", threads=1, preprocess="exact"))
    for data in PNGS[:2]:
        item = model.prepare(data)
        told = model.attention(model.run([item])[0])
        x = torch.from_numpy(normalise(item.pixels, model.info.preprocess)[None])
        with torch.no_grad(), timm_attention(theirs) as found:
            theirs(x)
        assert [unit.module for unit in told.units] == list(found)
        for unit in told.units:
            wanted = found[unit.module][0].mean(1).numpy()  # (M,) of (B, M, C)
            assert unit.channels == found[unit.module].shape[2]
            np.testing.assert_allclose(unit.mean_attention, wanted, rtol=0, atol=1e-6)
            assert unit.attention_difference == pytest.approx(float(wanted[1] - wanted[0]), abs=2e-6)
    model.close()


# --- the passes of an explanation ----------------------------------------------------------------------------------------

LARGE = photograph("astronaut", (1500, 1100))  # of which `prepare` decodes an eighth
FILES = {
    "small JPEG": encode(photograph("chelsea"), "JPEG", quality=95),
    "large JPEG": encode(LARGE, "JPEG", quality=95),
    "PNG": encode(photograph("coffee", (333, 500)), "PNG"),
    "WEBP": encode(photograph("coffee"), "WEBP", quality=90),
    "JPEG on its side": oriented(photograph("chelsea"), 6, "JPEG", quality=95),
    "large JPEG on its side": oriented(LARGE, 8, "JPEG", quality=95),
    "PNG upside down": oriented(photograph("chelsea", (301, 201)), 3),
    "PNG of a pixel's width": encode(photograph("chelsea", (1, 40)), "PNG"),
}
CUTS = {1.0: (0.0, 1.0), 1.5: (1 / 6, 5 / 6), 2.0: (0.25, 0.75)}


def upright(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


@pytest.mark.parametrize("preprocess", ["fast", "exact"])
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_the_first_pass_is_the_ordinary_one_and_the_others_enlarge_the_original(
    data: bytes, preprocess: str, model: LoadedModel
) -> None:
    model = LoadedModel(model.info, model._engine, model._limits, exact=preprocess == "exact")
    items, ordinary = model.explain_items(data), model.prepare(data)
    image, spec = upright(data), model.info.preprocess
    assert [item.scale for item in items] == [1.0, 1.5, 2.0]
    assert [item.features for item in items] == [True, False, False]
    np.testing.assert_array_equal(items[0].pixels, ordinary.pixels)
    assert {item.image for item in items} == {ordinary.image}
    assert (ordinary.image.width, ordinary.image.height) == image.size
    for item in items[1:]:
        sides = [max(1, round(side / item.scale)) for side in image.size]
        left, top = ((side - kept) // 2 for side, kept in zip(image.size, sides, strict=True))
        cut = image.crop((left, top, left + sides[0], top + sides[1]))  # of pixels as they were sent, not of reduced ones
        wanted = pixels(cut, spec) if preprocess == "exact" else quick_pixels(cut, spec, cut.size, (0, 0, *cut.size))
        np.testing.assert_array_equal(item.pixels, wanted)


def test_boxes_are_of_the_upright_original_and_nested(model: LoadedModel) -> None:
    for name in ("large JPEG", "JPEG on its side", "PNG"):
        data = FILES[name]
        explanation = explained(model, model.explain_items(data))
        size = upright(data).size
        boxes = [scale.box for scale in explanation.scales]
        assert boxes[0] == explanation.activation.box == seen(size, model.info.preprocess)
        for box, (low, high) in zip(boxes, CUTS.values(), strict=True):
            wide, tall = size
            whole = seen(size, model.info.preprocess)  # of the whole picture, about its middle: the part of it that the cut has
            share = high - low
            wanted = [wide / 2 + (whole.left - wide / 2) * share, tall / 2 + (whole.top - tall / 2) * share]
            wanted += [wide / 2 + (whole.right - wide / 2) * share, tall / 2 + (whole.bottom - tall / 2) * share]
            assert [box.left, box.top, box.right, box.bottom] == pytest.approx(wanted, abs=2)


def explained(model: LoadedModel, items: Sequence[Item], class_index: int | None = None, k: int = 2) -> Any:
    return model.explanation(items, model.run(items), k=k, class_index=class_index)


def test_an_explanation_is_made_of_its_rows(served: LoadedModel) -> None:
    items = served.explain_items(FILES["small JPEG"])
    rows = served.run(items)
    found = served.explanation(items, rows, k=2, class_index=None)
    assert found.image == served.prepare(FILES["small JPEG"]).image
    assert found.predictions == served.top_k(rows[0], 2) == found.scales[0].predictions
    assert found.attention == served.attention(rows[0])
    assert [scale.scale for scale in found.scales] == [1.0, 1.5, 2.0]
    for scale, row in zip(found.scales, rows, strict=True):
        assert scale.predictions == served.top_k(row, 2)
        assert scale.units == served.attention(row).units
    assert found.scales[0].units != found.scales[1].units != found.scales[2].units
    assert found.activation.prediction == found.predictions[0]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_map_is_of_the_class_that_was_asked_for(served: LoadedModel, index: int) -> None:
    items = served.explain_items(FILES["small JPEG"])
    rows = served.run(items)
    found = served.explanation(items, rows, k=1, class_index=index)
    activation, values = found.activation, np.array(found.activation.values)
    assert len(found.predictions) == 1  # whatever was asked to be drawn
    every = {prediction.index: prediction for prediction in served.top_k(rows[0], 3)}
    assert activation.prediction == every[index]
    net = network()
    weight, bias = (parameter.detach().numpy() for parameter in (net.fc.weight, net.fc.bias))
    assert activation.bias == float(bias[index])
    assert activation.logit == float(rows[0].logits[index])
    _, features = by_hooks(items[0], served)
    direct = np.einsum("f,fhw->hw", weight[index].astype(float), features.astype(float))
    exact = served.info.dtype.value == "float32"
    assert values.shape == direct.shape == (24, 28)
    np.testing.assert_allclose(values, direct, rtol=0, atol=(1e-4 if exact else 0.1) * np.abs(direct).max())
    near = (1e-5 if exact else 0.03) * float(np.abs(rows[0].logits).max())
    assert values.mean() + activation.bias == pytest.approx(activation.logit, abs=near)


def test_without_features_there_is_no_map(model: LoadedModel) -> None:
    items = [replace(item, features=False) for item in model.explain_items(PNGS[0])]
    with pytest.raises(EngineError, match="the engine gave no features"):
        explained(model, items)


def test_a_map_in_the_corner_of_what_was_seen() -> None:
    """The bundled network looks at the middle of a tall picture: its box, its map and its rankings belong together."""
    model = load(LoadRequest(checkpoint="bundled:cifar10", engine="eager", device="cpu", threads=1))
    cat, grey = photograph("chelsea", (300, 300)), Image.new("RGB", (300, 900), (128, 128, 128))
    maps = {}
    for name, y in (("above", 300), ("below", 450)):
        picture = grey.copy()
        picture.paste(cat.resize((150, 150)), (75, y))  # in the upper or the lower half of the square in the middle
        found = explained(model, model.explain_items(encode(picture)), class_index=3)
        assert found.activation.box == Box(0, 300, 300, 600)
        maps[name] = np.array(found.activation.values)
    strongest = {}
    for name, values in maps.items():
        strongest[name] = np.unravel_index(np.abs(values - np.median(values)).argmax(), values.shape)[0]
    middle = maps["above"].shape[0] // 2
    assert strongest["above"] < middle <= strongest["below"]
    model.close()
