"""The base of every shape on the wire, and the numbers of those that others brought up."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

OUTSIDE = (
    "outside"  # type of the fault of a number that is outside of its range: `expected` has the whole, `limit` the nearer end
)
_BOUNDS = ("greater_than_equal", "less_than_equal")


class Wire(BaseModel):
    """What is not described is refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "no number")
    return value


# As JSON Schema has it: 3.0 is one, which is how Google's protocols send every number; true and "3" are none.
Whole = Annotated[int, BeforeValidator(_number)]


def _from_0_to_1(value: object, inner: ValidatorFunctionWrapHandler) -> float:
    """pydantic tells of the one bound that was passed, and of NaN of either: here both are named."""
    try:
        number: float = inner(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        if fault["type"] not in _BOUNDS:
            raise
        limit = 0.0 if fault["type"] == _BOUNDS[0] else 1.0
        raise PydanticCustomError(OUTSIDE, "outside", {"expected": "a number from 0 to 1", "limit": limit}) from None
    return number


Score = Annotated[float, Field(ge=0, le=1), WrapValidator(_from_0_to_1)]
