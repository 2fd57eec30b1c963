"""Random views of a batch: scale, place, mirror, colour, small cut-out; each image its own, in a few tensor operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Views:
    """How far a random view may go.

    scale: side of the view over the side of the image, sampled log-uniformly; above 1 the image is seen smaller, with
        its mirror image around it.
    aspect: most that width and height differ. colour: most relative change of brightness, contrast and saturation.
    cutout: side of the square that is hidden, over the side of the view.
    """

    scale: tuple[float, float]
    aspect: float
    shift: float
    colour: float
    cutout: float


# CIFAR-10 is framed tightly: shown smaller as well as larger, so that a small object in a photograph is still known.
TIGHT = Views(scale=(0.72, 1.4), aspect=1.15, shift=0.12, colour=0.25, cutout=0.25)
TIGHT_FINAL = Views(scale=(0.85, 1.1), aspect=1.05, shift=0.1, colour=0.1, cutout=0.0)
# Photographs are 64x64, so a view of half the side still has 32 pixels of its own.
LOOSE = Views(scale=(0.5, 1.0), aspect=1.25, shift=0.0, colour=0.25, cutout=0.25)
LOOSE_FINAL = Views(scale=(0.75, 1.0), aspect=1.1, shift=0.0, colour=0.1, cutout=0.0)


def random_views(images: Tensor, size: int, views: Views, generator: torch.Generator) -> Tensor:
    """uint8 (B, 3, S, S) -> normalised float32 (B, 3, size, size)."""
    n = images.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    low, high = (torch.tensor(s).log().item() for s in views.scale)
    scale = uniform(low, high).exp()
    aspect = uniform(-1, 1).mul(torch.tensor(views.aspect).log()).exp().sqrt()
    half_w, half_h = scale * aspect, scale / aspect
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    room_x, room_y = ((1 - half).clamp(min=0) + views.shift for half in (half_w, half_h))
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = half_w * flip
    theta[:, 1, 1] = half_h
    theta[:, 0, 2] = uniform(-1, 1) * room_x
    theta[:, 1, 2] = uniform(-1, 1) * room_y
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    out = F.grid_sample(images.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    c = views.colour
    brightness, contrast, saturation = (uniform(1 - c, 1 + c).view(n, 1, 1, 1) for _ in range(3))
    gray = out.mean(1, keepdim=True)
    out = gray + (out - gray) * saturation
    mean = out.mean((1, 2, 3), keepdim=True)
    out = ((out - mean) * contrast + mean * brightness).clamp_(0, 1)
    out = normalise(out)
    side = round(views.cutout * size)
    if side:
        x0 = (uniform(0, 1) * (size - side + 1)).long().view(n, 1, 1)
        y0 = (uniform(0, 1) * (size - side + 1)).long().view(n, 1, 1)
        xs, ys = torch.arange(size).view(1, 1, size), torch.arange(size).view(1, size, 1)
        hidden = (xs >= x0) & (xs < x0 + side) & (ys >= y0) & (ys < y0 + side)
        out = out.masked_fill(hidden.unsqueeze(1), 0.0)
    return out


def normalise(images: Tensor) -> Tensor:
    """RGB in 0..1, (B, 3, H, W) -> ImageNet-normalised."""
    return (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
