"""The base of every shape on the wire."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """What is not described is refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
