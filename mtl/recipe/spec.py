"""The base of every recipe model, the Spec base of each family, and how `kind` finds its Spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, LiteralString, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from mtl.errors import KeyPath, did_you_mean, nearest, quoted
from mtl.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torchmetrics import Metric

    from mtl.data.columns import Array, Columns, Header, Mask

Shape = tuple[int, ...]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ .\-]*$", max_length=64)]
Text = Annotated[str, StringConstraints(max_length=1000)]


class IsPath:
    """Mark of a field that holds a path on disk."""


FilePath = Annotated[str, StringConstraints(min_length=1, max_length=1000), IsPath]
"""A path on disk; one that is relative is relative to the folder of the recipe that holds it."""


class Model(BaseModel):
    """A part of a recipe: strict, frozen, and without unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Let pydantic validate, and put the near miss into its message on unknown keys."""
        try:
            return handler(data)
        except ValidationError as error:
            found: list[dict[str, Any]] = [dict(e) for e in error.errors(include_url=False)]
            # a key that is missing because it is misspelt is one fault, not two
            unknown = [e["loc"][0] for e in found if e["type"] == "extra_forbidden" and len(e["loc"]) == 1]
            meant = {(nearest(key, cls.model_fields),) for key in unknown}
            details = [cls._detail(e) for e in found if e["type"] != "missing" or e["loc"] not in meant]
            raise ValidationError.from_exception_data(cls.__name__, details) from None

    @classmethod
    def _detail(cls, error: dict[str, Any]) -> InitErrorDetails:
        kind: Any = error["type"]
        if kind == "extra_forbidden" and len(error["loc"]) == 1:
            key = error["loc"][0]
            what = f"unknown key {quoted(key)}{cls._for_kind()}{did_you_mean(key, cls.model_fields)}"
            kind = _custom("unknown_key", what)
        elif kind in _OWN:
            kind = _custom(kind, error["msg"])
        elif kind == "value_error":
            kind = _custom("value_error", error["msg"].removeprefix("Value error, "))
        detail = InitErrorDetails(type=kind, loc=tuple(error["loc"]), input=error["input"])
        if isinstance(kind, str) and "ctx" in error:
            detail["ctx"] = error["ctx"]
        return detail

    @classmethod
    def _for_kind(cls) -> str:
        return ""

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """None is written only where it is not the default."""
        fields = type(self).model_fields
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if v is not None or fields[k].default is not None}


_OWN = ("unknown_key", "recipe")


def _custom(kind: LiteralString, what: str) -> PydanticCustomError:
    # the text goes in as a value: it may hold braces that belong to the user
    return PydanticCustomError(kind, "{what}", {"what": what})


def recipe_errors(title: str, errors: list[tuple[KeyPath, str]]) -> ValidationError:
    """Own findings, each with its path, in the form in which pydantic collects them."""
    details = [
        InitErrorDetails(type=_custom("recipe", what), loc=tuple(path), input=None) for path, what in errors
    ]
    return ValidationError.from_exception_data(title, details)


class Spec(Model):
    """The checked settings of one member of a family.

    `kind` is the registered name; `reference` cites where the member comes from.
    """

    reference: ClassVar[str] = ""
    registry: ClassVar[Registry[Any]]

    kind: str = ""

    @model_validator(mode="before")
    @classmethod
    def _fill_kind(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "kind" not in data and hasattr(cls, "registry"):
            return {**data, "kind": cls.registry.name_of(cls) or ""}
        return data

    @classmethod
    def _for_kind(cls) -> str:
        name = cls.registry.name_of(cls) if hasattr(cls, "registry") else None
        return f" for {name}" if name else ""


class Kind:
    """Annotation of a field that holds a member of a family: `kind` is looked up in its registry."""

    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.resolve,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda spec: spec.model_dump()),
        )

    def resolve(self, value: Any) -> Any:
        """A mapping with `kind` -> the Spec registered under that name."""
        if isinstance(value, self.registry.base):
            return value
        family = self.registry.family
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "recipe",
                "{what}",
                {"what": f"a {family} is a mapping with a key 'kind', got {quoted(value)}"},
            )
        if "kind" not in value:
            known = ", ".join(self.registry.names())
            raise recipe_errors(family, [(("kind",), f"missing key 'kind'; known: {known}")])
        name = value["kind"]
        if not isinstance(name, str) or name not in self.registry:
            raise recipe_errors(family, [(("kind",), self.registry.unknown(name))])
        return self.registry[name].model_validate(value)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        variants = []
        for name in self.registry.names():
            variant = dict(handler.resolve_ref_schema(handler(self.registry[name].__pydantic_core_schema__)))
            fields = dict(variant.get("properties", {}))
            fields["kind"] = {"const": name, "description": self.registry[name].reference}
            variant["properties"] = fields
            variant["required"] = sorted({"kind", *variant.get("required", [])})
            variants.append(variant)
        return {"oneOf": variants}


class Norm(Model):
    """Normalization after each linear map: over the batch, over one tower's row, or none."""

    kind: Literal["batch", "layer", "none"] = "batch"
    eps: float = Field(1e-5, gt=0, le=1, description="added to the variance")
    momentum: float = Field(
        0.1, gt=0, le=1, description="share of the new batch in the running statistics (batch only)"
    )
    debias: bool = Field(
        False, description="correct the running statistics for their start, as Adam does (batch only)"
    )


class SourceSpec(Spec):
    """Where rows come from. Members: `mtl/sources/`.

    A member also says `generated: ClassVar[bool]`: True where the data are made up.
    """

    generated: ClassVar[bool] = False

    def header(self) -> Header:
        """Shapes and label columns, without reading rows."""
        raise NotImplementedError

    def columns(self, seed: int) -> Columns:
        """The data. `seed` is used by generated sources only."""
        raise NotImplementedError


class TaskSpec(Spec):
    """What is learned from one label column. Members: `tasks/`.

    Shapes: B batch, T tasks of the group, O outputs per task.
    """

    headline: ClassVar[str]
    metric_names: ClassVar[tuple[str, ...]]
    higher_is_better: ClassVar[bool] = True

    weight: float = Field(1.0, ge=0, le=1e6, description="factor of the task's loss")
    target: str = Field(max_length=200, description="the label column")
    missing: Literal["error", "mask"] = Field(
        "error", description="a row without this label: an error, or left out of this task's loss and metrics"
    )

    def outputs(self, header: Header) -> tuple[str, ...]:
        """Names of the O outputs; raises UserError (path relative to the task) if they cannot be known."""
        raise NotImplementedError

    def encode(self, raw: Array, present: Mask, header: Header) -> Array:
        """Raw labels (n,) -> targets (n,) as the loss takes them; anything valid where none is present."""
        raise NotImplementedError

    def group(self, n_outputs: int) -> tuple[str | int | float, ...]:
        """Tasks that agree in this are computed together; the first part names the group."""
        raise NotImplementedError

    def loss(self, logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor) -> Tensor:
        """(T,) mean loss of each task over its present labels; exactly 0 for a task without any."""
        raise NotImplementedError

    def metrics(self, n_tasks: int, n_outputs: int) -> Metric:
        """A torchmetrics Metric: `update(logits_BTO, target_BT, present_BT)`, `compute()` -> name -> (T,)."""
        raise NotImplementedError


class BackboneSpec(Spec):
    """The shape of one tower. Members: `mtl/backbones/`. The heads follow its norm and init."""

    norm: Norm = Norm()
    init: Literal["he", "xavier"] = "he"

    def stage_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def build(self, n_towers: int, input_shape: Shape) -> list[tuple[str, nn.Module, Shape]]:
        """Each stage: name, module for all towers at once, output shape per tower.

        The first stage takes the input that all towers share, (B, *input_shape); every other one takes
        (B, K*C, H, W) or (B, K*F). Raises UserError with a path relative to the backbone.
        """
        raise NotImplementedError


class SharingSpec(Spec):
    """Where towers mix, and with what. Members: `mtl/sharing/`."""

    def sites(self) -> tuple[str, ...]:
        """The stages after which the towers are mixed."""
        raise NotImplementedError

    def build(self, n_towers: int, shape: Shape) -> nn.Module:
        """The unit of one site, from (B, K*C, ...) to the same; `shape` is one tower's, (C, H, W) or (F,).

        Its parameters are the alphas: never weight-decayed, their learning rate is `lr * lr_scale`. It has
        `alpha_KK()`, their summary as one (K, K) matrix.
        """
        raise NotImplementedError

    def alpha_lr_scale(self) -> float:
        """Factor of the alphas' learning rate."""
        return 1.0

    def keeps_equal_towers_equal(self, n_towers: int) -> bool:
        """Whether towers with the same initial weights would get the same gradients for ever."""
        return False


class WeightingSpec(Spec):
    """Losses per task -> one scalar. Members: `mtl/weightings/`."""

    def build(self, task_weights: tuple[float, ...]) -> nn.Module:
        """`forward(losses_N) -> scalar`; its state is part of every checkpoint."""
        raise NotImplementedError


class OptimizerSpec(Spec):
    """A torch.optim optimizer. Members: `mtl/training/optimizers.py`."""

    lr: float = Field(gt=0, le=10, description="learning rate")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over parameter groups; a group's `decay` says if weights in it are decayed."""
        raise NotImplementedError


class ScheduleSpec(Spec):
    """The learning rate's factor. Members: `mtl/training/schedules.py`."""

    def factor(self, step: int, total: int) -> float:
        """Factor of the learning rate at optimizer step `step` of `total`; a pure function."""
        raise NotImplementedError

    def check(self, total: int) -> None:
        """Raise UserError (path relative to the schedule) if it cannot serve a run of `total` steps."""


SOURCES: Registry[SourceSpec] = Registry("source", SourceSpec, "mtl.sources")
TASKS: Registry[TaskSpec] = Registry("task", TaskSpec, "mtl.tasks")
BACKBONES: Registry[BackboneSpec] = Registry("backbone", BackboneSpec, "mtl.backbones")
SHARING: Registry[SharingSpec] = Registry("sharing", SharingSpec, "mtl.sharing")
WEIGHTINGS: Registry[WeightingSpec] = Registry("weighting", WeightingSpec, "mtl.weightings")
OPTIMIZERS: Registry[OptimizerSpec] = Registry("optimizer", OptimizerSpec, "mtl.training.optimizers")
SCHEDULES: Registry[ScheduleSpec] = Registry("schedule", ScheduleSpec, "mtl.training.schedules")

FAMILIES: dict[str, Registry[Any]] = {
    r.family: r for r in (SOURCES, TASKS, BACKBONES, SHARING, WEIGHTINGS, OPTIMIZERS, SCHEDULES)
}

for _registry in FAMILIES.values():
    _registry.base.registry = _registry

register_source, register_task = SOURCES.register, TASKS.register
register_backbone, register_sharing, register_weighting = (
    BACKBONES.register,
    SHARING.register,
    WEIGHTINGS.register,
)
