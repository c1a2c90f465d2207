"""The base of every recipe model, the base of all Specs, and how `kind` finds its Spec."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, LiteralString, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
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

from mtl.data.files.remote.address import fault_of, is_address
from mtl.errors import KeyPath, did_you_mean, nearest, quoted
from mtl.registry import Registry

Shape = tuple[int, ...]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ .\-]*$", max_length=64)]
TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=64)]
Text = Annotated[str, StringConstraints(max_length=1000)]

MAX_TASKS = 1024


class IsPath:
    """Marks a field that holds a path on disk."""


def _on_disk(path: str) -> str:
    if is_address(path):
        raise fault("an address is no path on disk, which this key takes")
    return path


def _sound_address(path: str) -> str:
    found = fault_of(path) if is_address(path) else None
    if found is not None:
        raise fault("; ".join(found))
    return path


_Path = Annotated[str, StringConstraints(min_length=1, max_length=1000), IsPath]
FilePath = Annotated[_Path, AfterValidator(_on_disk)]
"""A path on disk. A relative path starts from the folder of the recipe that holds it."""
DataPath = Annotated[_Path, AfterValidator(_sound_address)]
"""As FilePath, or an address such as `s3://bucket/rows.parquet`."""


class Model(BaseModel):
    """A part of a recipe: strict, frozen, and without unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Let pydantic validate, then name the nearest known key in its message on each unknown key."""
        try:
            return handler(data)
        except ValidationError as error:
            found: list[dict[str, Any]] = [dict(e) for e in error.errors(include_url=False)]
            # a misspelt key is also a missing key: the user gets one fault for both
            unknown = [e["loc"][0] for e in found if e["type"] == "extra_forbidden" and len(e["loc"]) == 1]
            meant = {(nearest(key, cls.model_fields),) for key in unknown[:MAX_NEAR]}
            details = [cls._detail(e) for e in found[:MAX_NEAR] if not _is_meant(e, meant)]
            details += [cls._detail(e, near=False) for e in found[MAX_NEAR:] if not _is_meant(e, meant)]
            raise ValidationError.from_exception_data(cls.__name__, details) from None

    @classmethod
    def _detail(cls, error: dict[str, Any], near: bool = True) -> InitErrorDetails:
        kind: Any = error["type"]
        if kind == "extra_forbidden" and len(error["loc"]) == 1:
            key = error["loc"][0]
            deeper = f" (did you mean {quoted(f'{within}.{key}')}?)" if (within := cls._holder(key)) else ""
            meant = (deeper or did_you_mean(key, cls.model_fields)) if near else ""
            known = ", ".join(cls.model_fields) if near and not meant else ""
            kind = _custom("unknown_key", f"unknown key {quoted(key)}{cls._for_kind()}{meant}", known)
        elif kind in _OWN:
            kind = _custom(kind, error["msg"], error["ctx"].get("known", ""))
        elif kind == "value_error":
            kind = _custom("value_error", error["msg"].removeprefix("Value error, "))
        detail = InitErrorDetails(type=kind, loc=tuple(error["loc"]), input=error["input"])
        if isinstance(kind, str) and "ctx" in error:
            detail["ctx"] = error["ctx"]
        return detail

    @classmethod
    def _holder(cls, key: object) -> str | None:
        """The field that has a key of this name one level down: that of which most members have it, if there is one."""
        shares: dict[str, float] = {}
        for name, field in cls.model_fields.items():
            models = list(_models_in((field.annotation, *field.metadata)))
            if models:
                shares[name] = sum(key in model.model_fields for model in models) / len(models)
        best = max(shares, key=lambda name: shares[name], default=None)
        return best if best is not None and shares[best] > 0 else None

    @classmethod
    def _for_kind(cls) -> str:
        return ""

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out each key whose value is None, unless its default is something else."""
        fields = type(self).model_fields
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if v is not None or fields[k].default is not None}


def _models_in(parts: Iterable[Any]) -> Iterator[type[Model]]:
    """The models in a field's annotation: a section of the recipe, or each member of a family."""
    for part in parts:
        if isinstance(part, Kind):
            yield from (part.registry[name] for name in part.registry.names())
        elif isinstance(part, type) and issubclass(part, Model):
            yield part
        elif get_origin(part) in (Annotated, Union, UnionType):
            yield from _models_in((*get_args(part), *getattr(part, "__metadata__", ())))


MAX_NEAR = 50
"""The first 50 unknown keys of a mapping get the nearest known name; finding it takes 0.3 ms each."""
_OWN = ("unknown_key", "recipe")


def _is_meant(error: Mapping[str, Any], meant: Collection[tuple[str | None]]) -> bool:
    """Whether a key is missing only because the user misspelt it."""
    return error["type"] == "missing" and error["loc"] in meant


def _custom(kind: LiteralString, what: str, known: str = "") -> PydanticCustomError:
    # the text goes in as a value, because it may hold braces that belong to the user
    return PydanticCustomError(kind, "{what}", {"what": what, "known": known})


def recipe_errors(title: str, errors: list[tuple[KeyPath, str]]) -> ValidationError:
    """Faults that mtl itself found, each with its path, as the error that pydantic raises."""
    details = [
        InitErrorDetails(type=_custom("recipe", what), loc=tuple(path), input=None) for path, what in errors
    ]
    return ValidationError.from_exception_data(title, details)


class Spec(Model):
    """The checked settings of one member of a family.

    `kind` is the registered name; `reference` cites where the member comes from; `example` has the settings of a small
    instance, by which the tests try every member. A sharing scheme or a weighting may have its `equation` on one line,
    and say `when` it is the one to take; the tables in docs/ show both.
    """

    reference: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    when: ClassVar[str] = ""
    example: ClassVar[Mapping[str, Any]] = {}
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
    """Annotates a field that holds a member of a family: the registry turns its `kind` into the Spec.

    Args:
        registry: the family.
        by_name: whether the name alone stands for `{kind: name}`.
    """

    def __init__(self, registry: Registry[Any], by_name: bool = False) -> None:
        self.registry, self.by_name = registry, by_name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.resolve,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda spec: spec.model_dump()),
        )

    def resolve(self, value: Any) -> Any:
        """Turn a mapping with `kind` into the Spec that is registered under that name."""
        if isinstance(value, self.registry.base):
            return value
        family = self.registry.family
        if self.by_name and isinstance(value, str):
            if value not in self.registry:
                raise recipe_errors(family, [((), self.registry.unknown(value))])
            value = {"kind": value}
        if not isinstance(value, Mapping):
            article = "an" if family[0] in "aeiou" else "a"
            is_name = isinstance(value, str) and value in self.registry
            todo = f"; write {{kind: {value}}}, on the command line KEY.kind={value}" if is_name else ""
            raise PydanticCustomError(
                "recipe",
                "{what}",
                {"what": f"{article} {family} is a mapping with a key 'kind', got {quoted(value)}{todo}"},
            )
        if "kind" not in value:
            known = ", ".join(self.registry.names())
            near = nearest("kind", value)
            there = f" (there is {quoted(near)})" if near is not None else ""
            raise recipe_errors(family, [(("kind",), f"missing key 'kind'{there}; known: {known}")])
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
        if self.by_name:
            return {"anyOf": [{"enum": list(self.registry.names())}, {"oneOf": variants}]}
        return {"oneOf": variants}


class Norm(Model):
    """Normalization after each linear map: over the batch, over one tower's row, or none."""

    kind: Literal["batch", "layer", "none"] = Field("batch", description="over what is normalized")
    eps: float = Field(1e-5, gt=0, le=1, description="added to the variance")
    momentum: float = Field(
        0.1, gt=0, le=1, description="share of the new batch in the running statistics (batch only)"
    )
    debias: bool = Field(
        False, description="correct the running statistics for their start, as Adam does (batch only)"
    )
    sync: bool = Field(
        False,
        description="over the rows of all processes that train together, see distributed.md (batch only)",
    )


def fault(what: str) -> PydanticCustomError:
    """The error that a validator raises; its text reaches the user unchanged."""
    return PydanticCustomError("recipe", "{what}", {"what": what})
