"""SKNet: a residual network whose 3x3 convolutions choose their kernel size (Li et al., CVPR 2019, table 1).

    output = FC(GAP(SKBlocks(Stem(input))))

Attribute names (`conv1`, `bn1`, `layer1`, `fc`, `paths`, `attn`) are those of the public checkpoints, so that weights load
with no renaming. This file knows nothing of files, labels or pixels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from model.errors import ArchitectureError
from model.layers import (
    BN_EPS,
    BN_MOMENTUM,
    ConvNormAct,
    SelectiveKernel,
    check_kernel_sizes,
    check_switch,
    check_whole,
)
from model.registry import BlockName, variant

STEM_TYPES = (None, "deep", "small")


class SKBlock(nn.Module, ABC):
    """A residual block around one selective-kernel unit: (B, Cin, H, W) -> (B, planes * expansion, H/stride, W/stride).

    Subclasses set `expansion` and `unit_name` and build the unit; any class of this shape can be given to `SKNet`.
    """

    expansion: ClassVar[int] = 1
    unit_name: ClassVar[str]
    downsample: nn.Module | None

    @property
    def unit(self) -> SelectiveKernel:
        """The selective-kernel unit of this block."""
        unit = getattr(self, self.unit_name)
        assert isinstance(unit, SelectiveKernel)
        return unit

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """What the block adds to its shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return nn.functional.relu(self.residual(x) + shortcut)


class SKBasicBlock(SKBlock):
    """SK unit, then a plain 3x3: the block of the 18- and 34-layer networks."""

    expansion = 1
    unit_name = "conv1"

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int = 1,
        downsample: nn.Module | None = None,
        cardinality: int = 1,
        base_width: int = 64,
        **unit_args: Any,
    ) -> None:
        super().__init__()
        if cardinality != 1 or base_width != 64:
            raise ArchitectureError(
                f"the basic block takes cardinality=1 and base_width=64 only, not cardinality={cardinality}, "
                f"base_width={base_width}; use SKBottleneck for others"
            )
        self.conv1 = SelectiveKernel(in_channels, planes, stride=stride, **unit_args)
        self.conv2 = ConvNormAct(planes, planes, 3, apply_act=False)
        self.downsample = downsample

    def residual(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x))
        return out


class SKBottleneck(SKBlock):
    """1x1, SK unit, 1x1: the block of the 50- and 101-layer networks. The stride sits in the unit, never in the 1x1."""

    expansion = 4
    unit_name = "conv2"

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int = 1,
        downsample: nn.Module | None = None,
        cardinality: int = 1,
        base_width: int = 64,
        **unit_args: Any,
    ) -> None:
        super().__init__()
        width = math.floor(planes * base_width / 64) * cardinality
        if width < 1:
            raise ArchitectureError(
                f"base_width={base_width} leaves a stage of {planes} channels no width: "
                f"floor({planes} * {base_width} / 64) must be 1 or more"
            )
        self.conv1 = ConvNormAct(in_channels, width, 1)
        self.conv2 = SelectiveKernel(width, width, stride=stride, groups=cardinality, **unit_args)
        self.conv3 = ConvNormAct(width, planes * self.expansion, 1, apply_act=False)
        self.downsample = downsample

    def residual(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(self.conv2(self.conv1(x)))
        return out


BLOCKS: dict[BlockName, type[SKBlock]] = {"basic": SKBasicBlock, "bottleneck": SKBottleneck}


class SKNet(nn.Module):
    """A ResNet with selective-kernel blocks: images (B, in_channels, H, W) -> logits (B, num_classes).

    Args:
        block: the block type, `SKBasicBlock`, `SKBottleneck` or a compatible one.
        layers: number of blocks in each stage; `len(layers)` is the number of stages.
        num_classes: outputs of the classifier.
        kernel_sizes: nominal kernel size of each branch, two or more, odd.
        base_width, cardinality: width = floor(planes * base_width / 64) * cardinality, in `cardinality` groups.
        in_channels: channels of the image.
        stem_type: None, 7x7 of stride 2 and a 3x3 max-pool of stride 2; "deep", three 3x3 and the same max-pool;
            "small", for small images, one `stem_kernel_size` convolution of stride `stem_stride` and no max-pool.
        stem_width: outputs of the stem; the deep stem's last convolution has twice as many.
        avg_down: shortcuts average-pool before their 1x1 convolution instead of striding it.
        channels: width of each stage before expansion; the first `len(layers)` are used.
        split_input, rd_ratio, rd_divisor, keep_3x3: see `model.layers.SelectiveKernel`.

    Attributes:
        kernel_sizes, base_width, cardinality: as given.
        layers: the stages, each a sequence of blocks.

    Raises:
        ArchitectureError: an argument that is unknown or out of range; the text says what was given and what is allowed.
    """

    def __init__(
        self,
        block: type[SKBlock],
        layers: Sequence[int],
        num_classes: int = 1000,
        kernel_sizes: Sequence[int] = (3, 5),
        base_width: int = 64,
        cardinality: int = 1,
        **resnet_args: Any,
    ) -> None:
        super().__init__()
        args = _resnet_args(resnet_args)
        channels: tuple[int, ...] = tuple(args.pop("channels"))
        if not (isinstance(block, type) and issubclass(block, nn.Module) and hasattr(block, "expansion")):
            raise ArchitectureError(
                f"block={block!r}: give SKBasicBlock, SKBottleneck or another block class with an `expansion`"
            )
        for name, value in (("num_classes", num_classes), ("base_width", base_width), ("cardinality", cardinality)):
            check_whole(name, value)
        if not isinstance(layers, list | tuple) or not layers:
            raise ArchitectureError(f"layers={layers!r}: give the number of blocks of each stage, such as [2, 2, 2, 2]")
        for depth in layers:
            check_whole(f"layers={list(layers)!r}: number of blocks", depth)
        if len(channels) < len(layers):
            raise ArchitectureError(f"channels={channels!r} has {len(channels)} widths for {len(layers)} stages")
        self.kernel_sizes = list(check_kernel_sizes(kernel_sizes))
        self.base_width = base_width
        self.cardinality = cardinality
        self.num_classes = num_classes
        self.split_input: bool = args["split_input"]

        in_channels = self._build_stem(args)
        for stage, (planes, depth) in enumerate(zip(channels, layers, strict=False), start=1):
            blocks: list[nn.Module] = []
            for i in range(depth):
                stride = 2 if i == 0 and stage > 1 else 1
                out_channels = planes * block.expansion
                downsample = None
                if stride != 1 or in_channels != out_channels:
                    downsample = _shortcut(in_channels, out_channels, stride, avg_down=args["avg_down"])
                blocks.append(
                    block(
                        in_channels,
                        planes,
                        stride=stride,
                        downsample=downsample,
                        cardinality=cardinality,
                        base_width=base_width,
                        kernel_sizes=self.kernel_sizes,
                        split_input=args["split_input"],
                        rd_ratio=args["rd_ratio"],
                        rd_divisor=args["rd_divisor"],
                        keep_3x3=args["keep_3x3"],
                    )
                )
                in_channels = out_channels
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.num_stages = len(layers)
        self.num_features = in_channels
        self.fc = nn.Linear(in_channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _build_stem(self, args: dict[str, Any]) -> int:
        width: int = args["stem_width"]
        in_channels: int = args["in_channels"]
        self.conv1: nn.Module
        if args["stem_type"] == "deep":
            out = width * 2
            self.conv1 = nn.Sequential(
                nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width, eps=BN_EPS, momentum=BN_MOMENTUM),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width, eps=BN_EPS, momentum=BN_MOMENTUM),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, out, 3, padding=1, bias=False),
            )
        else:
            small = args["stem_type"] == "small"
            size, stride = (args["stem_kernel_size"], args["stem_stride"]) if small else (7, 2)
            out = width
            self.conv1 = nn.Conv2d(in_channels, out, size, stride=stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if args["stem_type"] == "small" else nn.MaxPool2d(3, stride=2, padding=1)
        return out

    @property
    def layers(self) -> list[nn.Sequential]:
        """The stages in order, each a sequence of blocks."""
        return [getattr(self, f"layer{i}") for i in range(1, self.num_stages + 1)]

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W) -> last feature map (B, num_features, H', W')."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        for stage in self.layers:
            x = stage(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.forward_features(x).mean((2, 3)))
        return logits


def units(net: SKNet) -> Iterator[tuple[str, str, SelectiveKernel]]:
    """Every selective-kernel unit in network order: (paper's name, module path, unit).

    The paper names the unit of block i (from 1) in stage s (from 1) SK_{s+1}_{i}: `layer2.3` holds SK_3_4.
    """
    for s, stage in enumerate(net.layers, start=1):
        for i, block in enumerate(stage):
            for name, module in block.named_modules():
                if isinstance(module, SelectiveKernel):
                    yield f"SK_{s + 1}_{i + 1}", f"layer{s}.{i}.{name}", module


@contextmanager
def record_attention(net: SKNet) -> Iterator[dict[str, Tensor]]:
    """Collect every unit's attention, (B, M, C) by module path, of the last forward pass made inside the context."""
    seen: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[path] = output.clone()

        return hook

    handles = [unit.attn.register_forward_hook(keep(path)) for _, path, unit in units(net)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def build(name: str, **overrides: Any) -> SKNet:
    """Make the network of a registry variant (or alias), freshly initialised, with some arguments replaced.

    Raises:
        UnknownVariant: no such variant.
        ArchitectureError: overrides that do not go with the rest.
    """
    arguments: dict[str, Any] = {**variant(name).arguments, **overrides}
    block = arguments.pop("block")
    if isinstance(block, str):
        if block not in BLOCKS:
            raise ArchitectureError(f"block={block!r}: allowed are {', '.join(BLOCKS)}")
        block = BLOCKS[block]
    return SKNet(block, arguments.pop("layers"), **arguments)


_RESNET_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "stem_type": None,
    "stem_width": 64,
    "stem_kernel_size": 3,
    "stem_stride": 1,
    "avg_down": False,
    "channels": (64, 128, 256, 512),
    "split_input": False,
    "rd_ratio": 1 / 16,
    "rd_divisor": 32,
    "keep_3x3": True,
}


def _resnet_args(given: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(given) - set(_RESNET_DEFAULTS))
    if unknown:
        raise ArchitectureError(
            f"unknown argument{'s' * (len(unknown) > 1)} {', '.join(unknown)}: allowed are num_classes, kernel_sizes, "
            f"base_width, cardinality, {', '.join(_RESNET_DEFAULTS)}"
        )
    args = {**_RESNET_DEFAULTS, **given}
    if args["stem_type"] not in STEM_TYPES:
        raise ArchitectureError(f"stem_type={args['stem_type']!r}: allowed are None, 'deep' and 'small'")
    if args["stem_type"] != "small" and ({"stem_kernel_size", "stem_stride"} & set(given)):
        raise ArchitectureError("stem_kernel_size and stem_stride go with stem_type='small' only")
    for name in ("in_channels", "stem_width", "stem_kernel_size", "stem_stride"):
        check_whole(name, args[name])
    if args["stem_kernel_size"] % 2 == 0:
        raise ArchitectureError(f"stem_kernel_size={args['stem_kernel_size']}: give an odd number")
    check_switch("avg_down", args["avg_down"])
    channels = args["channels"]
    if not isinstance(channels, list | tuple) or not channels:
        raise ArchitectureError(f"channels={channels!r}: give the width of each stage, such as (64, 128, 256, 512)")
    for width in channels:
        check_whole(f"channels={tuple(channels)!r}: width", width)
    return args


def _shortcut(in_channels: int, out_channels: int, stride: int, *, avg_down: bool) -> nn.Sequential:
    bn = nn.BatchNorm2d(out_channels, eps=BN_EPS, momentum=BN_MOMENTUM)
    if not avg_down:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), bn)
    # Padding must not enter the averages, and odd maps round up, or sizes and values leave the published network's.
    pool: nn.Module = nn.Identity()
    if stride != 1:
        pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, nn.Conv2d(in_channels, out_channels, 1, bias=False), bn)
