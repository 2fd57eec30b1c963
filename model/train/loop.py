"""The training loop: epochs of random views, a schedule, averaged weights, a state that survives an interruption."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model.sknet import SKBasicBlock, SKNet
from model.train import augment
from model.train.data import CLASSES, Images
from model.train.optimiser import Muon, split_parameters

logger = logging.getLogger("sknet.train")


@dataclass(frozen=True)
class Recipe:
    """Every number that decides the result."""

    layers: tuple[int, ...] = (2, 2, 2)
    channels: tuple[int, ...] = (64, 128, 256)
    size: int = 32
    epochs: int = 26
    minutes: float = 110.0  # the run ends here even if epochs are left: the schedule follows whichever is further
    batch_size: int = 256
    optimiser: str = "muon"
    lr: float = 0.1  # SGD
    muon_lr: float = 0.03  # the share of its norm by which a convolution turns in one step
    weight_decay: float = 5e-4
    warm_up: float = 0.1  # share of all steps in which the rate rises
    smoothing: float = 0.1
    average: float = 0.998  # per step
    final_share: float = 0.12  # mild views at the end: the statistics of what is served
    sizes: tuple[tuple[float, int], ...] = ((0.35, 24), (0.65, 28), (1.0, 32))  # (until this share of the run, side)
    seed: int = 0


def network(recipe: Recipe) -> SKNet:
    """The bundled network: three unsplit stages behind a 5x5 stride-2 stem; maps of 16, 8 and 4 at 32x32."""
    return SKNet(SKBasicBlock, recipe.layers, **arguments(recipe))  # type: ignore[arg-type]


def arguments(recipe: Recipe) -> dict[str, object]:
    return {
        "num_classes": len(CLASSES),
        "channels": recipe.channels,
        "stem_type": "small",
        "stem_width": recipe.channels[0],
        "stem_kernel_size": 5,
        "stem_stride": 2,
    }


class Trainer:
    """One run. `run()` starts it or takes it up where its state file ends."""

    def __init__(
        self, recipe: Recipe, tight: Images, loose: Images | None, held: dict[str, Images], work: Path, device: torch.device
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.held, self.work, self.device = recipe, held, work, device
        self.sources = [(tight, augment.TIGHT, augment.TIGHT_FINAL)]
        if loose is not None:
            self.sources.append((loose, augment.LOOSE, augment.LOOSE_FINAL))
        self.net = network(recipe).to(device).to(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        scale_free, weights, rest = split_parameters(self.net)
        self.optimisers: list[tuple[torch.optim.Optimizer, float]] = []
        if recipe.optimiser == "muon":
            self.optimisers.append((Muon(scale_free, recipe.muon_lr), recipe.muon_lr))
        else:
            weights = scale_free + weights
        groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        sgd = torch.optim.SGD(groups, recipe.lr, momentum=0.9, nesterov=True)
        self.optimisers.append((sgd, recipe.lr))
        self.epoch = 0
        self.step = 0
        self.seconds = 0.0
        count = sum(len(images.labels) for images, _, _ in self.sources)
        self.steps_per_epoch = count // recipe.batch_size

    @property
    def state_path(self) -> Path:
        return self.work / "state.safetensors"

    def run(self) -> None:
        self.resume()
        while self.done() < 1:
            loss = self._train_epoch()
            self.epoch += 1
            self._save()
            scores = {
                name: evaluate(self.averaged(), images, self.recipe.size, self.device) for name, images in self.held.items()
            }
            figures = ", ".join(f"{name} {score:.2%}" for name, score in scores.items())
            logger.info("epoch %d/%d loss %.3f %s (%.0f s)", self.epoch, self.recipe.epochs, loss, figures, self.seconds)

    def done(self) -> float:
        """Share of the run that is behind, by steps or by time."""
        by_steps = self.step / (self.recipe.epochs * self.steps_per_epoch)
        return max(by_steps, self.seconds / 60 / self.recipe.minutes)

    def averaged(self) -> SKNet:
        """The network that is served: averaged weights and statistics, in eval mode."""
        net = network(self.recipe).to(self.device).to(memory_format=torch.channels_last)
        net.load_state_dict(self.average)
        return net.eval()

    def served(self, batches: int = 60) -> SKNet:
        """The averaged weights with the statistics of normalisation measured anew on plain training images.

        Training saw cropped, coloured and hidden views; whoever asks the network sends whole images. The sources are mixed
        as in training.
        """
        net = self.averaged().train()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # a plain mean over all batches
                module.reset_running_stats()
        rng = np.random.default_rng(self.recipe.seed)
        total = sum(len(images.labels) for images, _, _ in self.sources)
        counts = [round(self.recipe.batch_size * len(images.labels) / total) for images, _, _ in self.sources]
        with torch.no_grad():
            for _ in range(batches):
                parts = [
                    _plain(images.pixels[rng.integers(0, len(images.labels), count)], self.recipe.size)
                    for (images, _, _), count in zip(self.sources, counts, strict=True)
                ]
                net(torch.cat(parts).to(self.device, memory_format=torch.channels_last))
        return net.eval()

    def _train_epoch(self) -> float:
        recipe = self.recipe
        started, before = time.monotonic(), self.seconds
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + self.epoch)
        owners = np.concatenate([np.full(len(images.labels), i) for i, (images, _, _) in enumerate(self.sources)])
        offsets = np.cumsum([0] + [len(images.labels) for images, _, _ in self.sources])
        order = torch.randperm(len(owners), generator=generator).numpy()
        losses: list[float] = []
        self.net.train()
        for i in tqdm(range(self.steps_per_epoch), desc=f"epoch {self.epoch + 1}", disable=not sys.stderr.isatty()):
            done = self.done()
            if done >= 1:
                break
            size = next(side for until, side in recipe.sizes if done <= until)
            final = done > 1 - recipe.final_share
            chosen = order[i * recipe.batch_size : (i + 1) * recipe.batch_size]
            parts, labels = [], []
            for owner, (images, strong, mild) in enumerate(self.sources):
                mine = chosen[owners[chosen] == owner] - offsets[owner]
                if len(mine):
                    views = mild if final else strong
                    parts.append(augment.random_views(torch.from_numpy(images.pixels[mine]), size, views, generator))
                    labels.append(torch.from_numpy(images.labels[mine]))
            losses.append(self._train_step(torch.cat(parts), torch.cat(labels)))
            self.seconds = before + time.monotonic() - started
            if i % 50 == 49 and not sys.stderr.isatty():
                logger.info("epoch %d step %d loss %.3f, %.1f %% done", self.epoch + 1, i + 1, np.mean(losses[-50:]), done * 100)
        return float(np.mean(losses))

    def _train_step(self, x: Tensor, y: Tensor) -> float:
        self._set_rate()
        x = x.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.net(x)
        loss = F.cross_entropy(logits.float(), y.to(self.device), label_smoothing=self.recipe.smoothing)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        for optimiser, _ in self.optimisers:
            optimiser.step()
        self.net.zero_grad()
        self.step += 1
        # A short memory at first, so that the random start does not linger in the average.
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)
        return loss.item()

    def _set_rate(self) -> None:
        done, warm = self.done(), self.recipe.warm_up
        share = done / warm if done < warm else (1 - done) / (1 - warm)
        for optimiser, peak in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = peak * max(share, 1e-3)

    def _save(self) -> None:
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, (optimiser, _) in enumerate(self.optimisers):
            for j, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"]):
                tensors[f"momentum.{i}.{j}"] = optimiser.state[parameter]["momentum_buffer"]
        progress = {"epoch": self.epoch, "step": self.step, "seconds": self.seconds}
        metadata = {"recipe": json.dumps(asdict(self.recipe)), "progress": json.dumps(progress)}
        partial = self.state_path.with_suffix(".partial")
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, partial, metadata)
        partial.replace(self.state_path)

    def resume(self) -> None:
        """Take up the state file of an earlier run, where there is one."""
        if not self.state_path.exists():
            return
        with safe_open(self.state_path, "pt", device=str(self.device)) as saved:
            metadata = saved.metadata()
            if metadata["recipe"] != json.dumps(asdict(self.recipe)):
                raise SystemExit(
                    f"{self.state_path} belongs to another recipe: {metadata['recipe']}; remove it or use its numbers"
                )
            self.net.load_state_dict({k: saved.get_tensor(f"net.{k}") for k in self.net.state_dict()})
            self.average = {k: saved.get_tensor(f"average.{k}") for k in self.average}
            for i, (optimiser, _) in enumerate(self.optimisers):
                for j, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"]):
                    buffer = saved.get_tensor(f"momentum.{i}.{j}").to(memory_format=torch.preserve_format)
                    optimiser.state[parameter]["momentum_buffer"] = buffer
        progress = json.loads(metadata["progress"])
        self.epoch, self.step, self.seconds = progress["epoch"], progress["step"], progress["seconds"]
        logger.info("resumed after epoch %d", self.epoch)


def _plain(pixels: npt.NDArray[np.uint8], size: int) -> Tensor:
    """uint8 (N, 3, S, S) -> normalised (N, 3, size, size), resized where the side is another."""
    images = torch.from_numpy(pixels).float() / 255
    if images.shape[-1] != size:
        images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
    return augment.normalise(images)


@torch.inference_mode()
def evaluate(net: nn.Module, images: Images, size: int, device: torch.device) -> float:
    """Top-1 accuracy, 0..1, with one view in float32; images of another side are resized, bicubic with antialiasing.

    Args:
        size: side of the network's input in pixels.
    """
    found = probabilities(net, images, size, device).argmax(1)
    return int((found == torch.from_numpy(images.labels)).sum()) / len(images.labels)


@torch.inference_mode()
def probabilities(net: nn.Module, images: Images, size: int, device: torch.device) -> torch.Tensor:
    """Of each class for each image, (N, num_classes) on the CPU, seen as `evaluate` sees them."""
    rows = []
    for start in range(0, len(images.labels), 500):
        x = _plain(images.pixels[start : start + 500], size)
        rows.append(net(x.to(device, memory_format=torch.channels_last)).softmax(1).cpu())
    return torch.cat(rows)
