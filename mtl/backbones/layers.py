"""A tower given layer by layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from mtl.errors import UserError, quoted
from mtl.recipe.specs import BACKBONES, BackboneSpec, Kind, Norm, Shape, Spec, recipe_errors
from mtl.registry import Registry

if TYPE_CHECKING:
    from torch import nn

Activation = Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "none"]
StageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]


class StageSpec(Spec):
    """One stage of a tower."""

    reference: ClassVar[str] = "ours"

    name: StageName = Field(description="what stitches and plots call it")

    def build(self, backbone: Layers, n_towers: int, shape: Shape, first: bool) -> tuple[nn.Module, Shape]:
        """The stage for K = `n_towers` towers, (B, K*C, ...) -> (B, K*C', ...), and its output shape per tower.

        Args:
            backbone: the settings that the stage uses where it has none of its own.
            n_towers: K.
            shape: the input shape of one tower.
            first: whether all towers read one shared input, (B, C, ...).

        Raises:
            UserError: the stage does not fit the input; its path is relative to the stage.
        """
        raise NotImplementedError


STAGES: Registry[StageSpec] = Registry("stage", StageSpec, "mtl.backbones.layers", ("build",))
StageSpec.registry = STAGES


@BACKBONES.register("layers")
class Layers(BackboneSpec):
    """A chain of stages; after each conv and linear map come the norm and the activation."""

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {"stages": ({"name": "fc1", "kind": "linear", "features": 4},)}

    activation: Activation = Field("relu", description="after each norm")
    stages: tuple[Annotated[StageSpec, Kind(STAGES)], ...] = Field(
        min_length=1, max_length=200, description="from the input to what the heads read"
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        counts = Counter(stage.name for stage in self.stages)
        twice = [i for i, stage in enumerate(self.stages) if counts[stage.name] > 1]
        if twice:
            name = self.stages[twice[-1]].name
            raise recipe_errors(
                "layers", [(("stages", twice[-1], "name"), f"stage {quoted(name)} is given twice")]
            )
        return self

    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def widths(self) -> dict[str, int]:
        return {
            f"stages.{i}.{key}": value
            for i, stage in enumerate(self.stages)
            for key in ("channels", "features")
            if isinstance(value := getattr(stage, key, None), int)
        }

    def build(
        self, n_towers: int, input_shape: Shape, shared_input: bool = True
    ) -> list[tuple[str, nn.Module, Shape]]:
        built: list[tuple[str, nn.Module, Shape]] = []
        shape = input_shape
        for i, stage in enumerate(self.stages):
            try:
                module, shape = stage.build(self, n_towers, shape, first=shared_input and i == 0)
            except UserError as error:
                path = ("stages", i, *error.path)
                raise UserError(error.place, error.what, error.todo, path=path) from None
            built.append((stage.name, module, shape))
        return built


class MappedStage(StageSpec):
    """A stage with weights: linear map without bias, norm, activation."""

    norm: Norm | None = Field(None, description="instead of the backbone's")
    activation: Activation | None = Field(None, description="instead of the backbone's")

    def finish(self, backbone: Layers, n_towers: int, linear_map: nn.Module, shape: Shape) -> nn.Module:
        """`linear_map`, followed by the norm and the activation, for towers of output `shape` each."""
        from torch import nn

        from mtl.model.layers import grouped_norm

        norm = self.norm or backbone.norm
        parts: dict[str, nn.Module] = {"map": linear_map}
        module = grouped_norm(
            norm.kind,
            n_towers,
            shape[0],
            spatial=len(shape) == 3,
            eps=norm.eps,
            momentum=norm.momentum,
            debias=norm.debias,
            sync=norm.sync,
        )
        if module is not None:
            parts["norm"] = module
        activation = activation_module(self.activation or backbone.activation)
        if activation is not None:
            parts["activation"] = activation
        stage = nn.Sequential()
        for name, part in parts.items():
            stage.add_module(name, part)
        return stage


@STAGES.register("conv")
class Conv(MappedStage):
    """Convolution, (C, H, W) -> (channels, H', W')."""

    example: ClassVar[Mapping[str, Any]] = {"name": "it", "channels": 2, "kernel": 3}

    channels: int = Field(ge=1, le=65536, description="channels of each tower's output")
    kernel: int = Field(ge=1, le=255, description="height and width, in pixels")
    stride: int = Field(1, ge=1, le=255, description="pixels from one position to the next")
    padding: int | None = Field(None, ge=0, le=255, description="zeros on each side; default: kernel // 2")

    def build(self, backbone: Layers, n_towers: int, shape: Shape, first: bool) -> tuple[nn.Module, Shape]:
        from mtl.model.layers import grouped_conv

        channels, height, width = _image(backbone, self, shape)
        padding = self.kernel // 2 if self.padding is None else self.padding
        size = [(side + 2 * padding - self.kernel) // self.stride + 1 for side in (height, width)]
        if min(size) < 1:
            raise UserError(
                "",
                f"a kernel of {self.kernel} with padding {padding} does not fit on {height} x {width} pixels",
                path=("kernel",),
            )
        conv = grouped_conv(
            n_towers,
            channels,
            self.channels,
            kernel=self.kernel,
            stride=self.stride,
            padding=padding,
            shared_input=first,
        )
        out = (self.channels, *size)
        return self.finish(backbone, n_towers, conv, out), out


@STAGES.register("linear")
class Linear(MappedStage):
    """Fully connected layer, any shape -> (features,); an image is flattened first."""

    example: ClassVar[Mapping[str, Any]] = {"name": "it", "features": 3}

    features: int = Field(ge=1, le=1_000_000, description="features of each tower's output")

    def build(self, backbone: Layers, n_towers: int, shape: Shape, first: bool) -> tuple[nn.Module, Shape]:
        from torch import nn

        from mtl.model.layers import GroupedLinear

        linear = GroupedLinear(n_towers, math.prod(shape), self.features, shared_input=first)
        stage = self.finish(backbone, n_towers, linear, (self.features,))
        if len(shape) > 1:
            flattened = nn.Sequential()
            flattened.add_module("flatten", nn.Flatten())
            for name, part in stage.named_children():
                flattened.add_module(name, part)
            stage = flattened
        return stage, (self.features,)


class Pool(StageSpec):
    """Pooling over squares that do not overlap; a rest at the border is dropped."""

    size: int = Field(ge=1, le=255, description="height and width of a square, in pixels")

    def module(self) -> nn.Module:
        """The pooling of torch, (B, K*C, H, W) -> (B, K*C, H // size, W // size)."""
        raise NotImplementedError

    def build(self, backbone: Layers, n_towers: int, shape: Shape, first: bool) -> tuple[nn.Module, Shape]:
        _refuse_first(self, first)
        channels, height, width = _image(backbone, self, shape)
        if min(height, width) < self.size:
            raise UserError(
                "", f"a pool of {self.size} does not fit on {height} x {width} positions", path=("size",)
            )
        return self.module(), (channels, height // self.size, width // self.size)


@STAGES.register("max_pool")
class MaxPool(Pool):
    """The largest value of each square."""

    example: ClassVar[Mapping[str, Any]] = {"name": "it", "size": 2}

    def module(self) -> nn.Module:
        from torch import nn

        return nn.MaxPool2d(self.size)


@STAGES.register("avg_pool")
class AvgPool(Pool):
    """The mean of each square."""

    example: ClassVar[Mapping[str, Any]] = {"name": "it", "size": 2}

    def module(self) -> nn.Module:
        from torch import nn

        return nn.AvgPool2d(self.size)


@STAGES.register("global_avg_pool")
class GlobalAvgPool(StageSpec):
    """The mean over all positions, (C, H, W) -> (C,)."""

    example: ClassVar[Mapping[str, Any]] = {"name": "it"}

    def build(self, backbone: Layers, n_towers: int, shape: Shape, first: bool) -> tuple[nn.Module, Shape]:
        from torch import nn

        _refuse_first(self, first)
        channels, _, _ = _image(backbone, self, shape)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (channels,)


@STAGES.register("dropout")
class Dropout(StageSpec):
    """Sets each value to 0 with probability p in training, and scales the rest by 1 / (1 - p)."""

    example: ClassVar[Mapping[str, Any]] = {"name": "it", "p": 0.5}

    p: float = Field(ge=0, lt=1, description="probability")

    def build(self, backbone: Layers, n_towers: int, shape: Shape, first: bool) -> tuple[nn.Module, Shape]:
        from mtl.model import parts

        _refuse_first(self, first)
        return parts.Dropout(self.p), shape


def activation_module(name: Activation) -> nn.Module | None:
    """The module of an activation; None for `none`."""
    from torch import nn

    classes: dict[str, Any] = {
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "elu": nn.ELU,
        "selu": nn.SELU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
    }
    return classes[name]() if name in classes else None


def _image(backbone: Layers, stage: StageSpec, shape: Shape) -> Shape:
    if len(shape) != 3:
        what, todo = f"its input is {shape[0]} features", "put it before the first linear stage"
        if stage is backbone.stages[0]:
            what, todo = (
                "a row of the source is a list of numbers",
                "take linear stages, or a source of images",
            )
        raise UserError("", f"{stage.kind} needs an image (channels, height, width), but {what}", todo)
    return shape


def _refuse_first(stage: StageSpec, first: bool) -> None:
    if first:
        raise UserError(
            "", f"{stage.kind} cannot be the first stage: towers part at the first conv or linear stage"
        )
