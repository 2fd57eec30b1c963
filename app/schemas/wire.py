"""The base of every shape on the wire, and the numbers of those that others brought up."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


class Wire(BaseModel):
    """What is not described is refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "no number")
    return value


# As JSON Schema has it: 3.0 is one, which is how Google's protocols send every number; true and "3" are none.
Whole = Annotated[int, BeforeValidator(_number)]
