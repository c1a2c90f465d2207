"""The settings of a backbone of timm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from mtl.backbones.timm.package import INSTALL, load
from mtl.errors import KeyPath, UserError, did_you_mean, quoted
from mtl.recipe.specs import BACKBONES, BackboneSpec, FilePath, Shape, recipe_errors

if TYPE_CHECKING:
    from torch import Tensor, nn

Stages = Annotated[tuple[str, ...], Field(min_length=1, max_length=200)]


@BACKBONES.register("timm")
class Timm(BackboneSpec):
    """A network of the package timm, with or without its trained weights, as a chain of stages."""

    reference: ClassVar[str] = "Wightman 2019, PyTorch Image Models, doi:10.5281/zenodo.4414861"
    example: ClassVar[Mapping[str, Any]] = {"name": "test_resnet"}
    packages: ClassVar[tuple[str, ...]] = ("timm",)
    install: ClassVar[str] = INSTALL

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?$", max_length=100)] = (
        Field(
            description="timm's name of the network, with or without the tag of its weights: resnet18, resnet18.a1_in1k"
        )
    )
    stages: Stages | None = Field(
        None,
        description="where the network is cut, in its order; it ends after the last of them; default: all of its "
        "stages, of which stem is the first and pool, a vector, the last",
    )
    pretrained: bool = Field(False, description="whether every tower starts from the trained weights")
    weights: FilePath | None = Field(
        None,
        description="a file of trained weights, .safetensors or of torch.save; default: those of timm's hub",
    )
    freeze: tuple[str, ...] = Field(
        (), max_length=200, description="stages whose weights and statistics of norms stay as they are"
    )

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.weights is not None and not self.pretrained:
            what = "trained weights are given, and pretrained is false; set pretrained: true"
            raise recipe_errors("timm", [(("weights",), what)])
        if find_spec("timm") is not None and (problems := list(self._problems())):
            raise recipe_errors("timm", problems)
        return self

    def _problems(self) -> Iterator[tuple[KeyPath, str]]:
        """Every fault of the settings that timm knows of."""
        from mtl.backbones.timm.network import NotAChain, chain_of

        models = load().models
        if not models.is_model(self.name):
            known = did_you_mean(self.name, models.list_models())
            yield ("name",), f"timm has no network {quoted(self.name)}{known}"
            return
        try:
            config, chain = models.get_pretrained_cfg(self.name), chain_of(self.name)
        except NotAChain as reason:
            yield ("name",), f"{self.name} cannot be cut into stages: {reason}; take a convolutional network"
            return
        except RuntimeError as error:
            yield ("name",), str(error)
            return
        if self.pretrained and self.weights is None and not (config and config.has_weights):
            yield ("pretrained",), f"timm names no weights of {self.name}; give a file by weights: PATH"
        stages = tuple(chain.stages)
        known = ", ".join(stages)
        given = self.stages or ()
        for i, stage in enumerate(given):
            if stage not in stages:
                yield ("stages", i), f"no stage {quoted(stage)}; stages: {known}{did_you_mean(stage, stages)}"
            elif any(s in stages and stages.index(s) >= stages.index(stage) for s in given[:i]):
                yield ("stages", i), f"stage {quoted(stage)} is out of order; stages: {known}"
        own = self.stages or stages
        for i, stage in enumerate(self.freeze):
            if stage not in own:
                names = ", ".join(own)
                yield ("freeze", i), f"no stage {quoted(stage)}; stages: {names}{did_you_mean(stage, own)}"

    def stage_names(self) -> tuple[str, ...]:
        from mtl.backbones.timm.network import chain_of

        return self.stages or tuple(chain_of(self.name).stages)

    def frozen(self) -> tuple[str, ...]:
        return self.freeze

    def starts_equal(self) -> bool:
        return self.pretrained

    def remark(self, standardize: str) -> str:
        if not self.pretrained or standardize == "per_channel":
            return ""
        config = load().models.get_pretrained_cfg(self.name)
        mean, std = (", ".join(f"{value:g}" for value in each) for each in (config.mean, config.std))
        return (
            f"{self.name} was trained on channels less their mean over their deviation ({mean}; {std} of pixels from "
            f"0 to 1), and data.standardize is {standardize}; kind: per_channel gives it such inputs"
        )

    def build(
        self, n_towers: int, input_shape: Shape, shared_input: bool = True
    ) -> list[tuple[str, nn.Module, Shape]]:
        from mtl.backbones.timm.network import make, shapes_of

        if len(input_shape) != 3:
            what = (
                f"{self.name} reads images (channels, height, width), but a row has {input_shape[0]} numbers"
            )
            raise UserError("", what, "take a source of images", path=("name",))
        try:
            shapes = shapes_of(self.name, input_shape, self.stage_names()[-1])
        except ValueError as error:
            raise UserError("", f"{self.name}: {error}", path=("name",)) from None
        towers = self._for_towers(make(self.name, input_shape[0]), n_towers, shared_input)
        return [(stage, module, shapes[stage]) for stage, module in towers.items()]

    def trained(
        self, n_towers: int, input_shape: Shape, shared_input: bool = True
    ) -> Mapping[str, Mapping[str, Tensor]] | None:
        if not self.pretrained:
            return None
        from mtl.backbones.timm.weights import trained_network

        network = trained_network(self.name, input_shape[0], self.weights)
        towers = self._for_towers(network, n_towers, shared_input)
        return {stage: module.state_dict() for stage, module in towers.items()}

    def _for_towers(self, network: nn.Module, n_towers: int, shared_input: bool) -> dict[str, nn.Module]:
        """The stages of a network, each for K towers that start as the network is."""
        from mtl.backbones.timm.grouping import for_towers
        from mtl.backbones.timm.network import chain_of, cut

        stages: Sequence[tuple[str, nn.Sequential]] = list(
            cut(network, chain_of(self.name).up_to(self.stage_names())).items()
        )
        return {
            stage: for_towers(module, n_towers, shared_input=shared_input and i == 0)
            for i, (stage, module) in enumerate(stages)
        }
