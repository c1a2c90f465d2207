"""The keys of a table source: its input columns, and how the texts of single columns are read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from mtl.errors import quoted
from mtl.recipe.base import Model, recipe_errors

if TYPE_CHECKING:
    from mtl.data.files.formats.form import ColumnForm

ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
MissingText = Annotated[str, Field(max_length=100)]
Side = Annotated[int, Field(ge=1, le=4096)]
DATE_SIGNS = tuple(f"%{sign}" for sign in "YymdbBHMSIpjFTRD%")
"""The signs of `strptime` that a date may have."""


class ImageColumn(Model):
    """A column of paths of PNG or JPEG files, relative to the table's folder."""

    column: ColumnName = Field(description="the column")
    size: tuple[Side, Side] | None = Field(None, description="height and width; default: all have one size")
    mode: Literal["grey", "rgb"] = Field("rgb", description="one channel or three")


class ColumnFormat(Model):
    """How the texts of one column are read."""

    na_values: tuple[MissingText, ...] | None = Field(
        None, max_length=100, description="texts that mean a missing value; default: those of the table"
    )
    decimal: Literal[".", ","] = Field(".", description="the sign before the fraction of a number")
    thousands: Literal["", ",", ".", "'", " "] = Field(
        "",
        description="the sign between groups of three digits; an apostrophe or a space in any of their forms",
    )
    unit: str = Field("", max_length=20, description="before or after a number; 12% is read as 12")
    date_format: str = Field(
        "", max_length=40, description="of a date, such as %d.%m.%Y; default: ISO 8601, such as 2024-03-01"
    )
    separator: str = Field(
        "",
        max_length=5,
        description="between the labels of a row that lists several; default: that of the table",
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.decimal == self.thousands:
            raise recipe_errors("format", [(("thousands",), f"is {self.thousands!r}, as decimal is")])
        if self.unit != self.unit.strip() or any(sign.isdigit() for sign in self.unit):
            raise recipe_errors("format", [(("unit",), "a unit has no digits, and no spaces around it")])
        if self.date_format:
            signs = re.findall(r"%.?", self.date_format)
            wrong = [sign for sign in signs if sign not in DATE_SIGNS]
            if wrong:
                what = f"{quoted(wrong[0])} is none of {' '.join(DATE_SIGNS)}"
                raise recipe_errors("format", [(("date_format",), what)])
            if not any(sign in signs for sign in ("%Y", "%y", "%F", "%D")):
                raise recipe_errors("format", [(("date_format",), "has no year: %Y or %y")])
        return self

    def form(self) -> ColumnForm:
        """The same settings for a reader."""
        from mtl.data.files.formats.form import ColumnForm

        return ColumnForm(**self.model_dump())


class Inputs(Model):
    """Which columns a network reads, and how. Names may be patterns such as `sensor_*`."""

    numeric: tuple[ColumnName, ...] = Field((), max_length=100_000, description="columns of numbers")
    categorical: tuple[ColumnName, ...] = Field((), max_length=10_000, description="columns of classes")
    vector: tuple[ColumnName, ...] = Field((), max_length=1000, description="columns of lists of numbers")
    dates: tuple[ColumnName, ...] = Field(
        (),
        max_length=1000,
        description="columns of dates; each becomes year, month, weekday and days since 1970-01-01",
    )
    image: ImageColumn | None = Field(None, description="a column of image paths, instead of the others")
    missing: Literal["error", "mean", "median"] = Field(
        "error", description="a missing number: an error, or filled with the training rows' mean or median"
    )
    indicator: bool = Field(
        False, description="a 0/1 column beside each numeric column with missing values, saying where"
    )
    embedding: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="dimensions of a learned vector per category and tower; default: one-hot"
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        plain = bool(self.numeric or self.categorical or self.vector or self.dates)
        if plain == (self.image is not None):
            what = (
                "an image column stands alone"
                if plain
                else "no input columns: give numeric, categorical, vector, dates or image"
            )
            raise recipe_errors("inputs", [((), what)])
        return self
