"""Marks that the plan's models carry, so that the loader knows how the text of a value is to be read.

pydantic ignores them; `shape` acts on them while it turns YAML into data.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct
from pydantic import SecretStr, WithJsonSchema


class Raw(Struct, frozen=True):
    """The text in the file counts as it stands: `012`, `1.0`, `Y` and `null` are texts here."""


class Refers(Struct, frozen=True):
    """The value may be `${ENV}` or `file:PATH`. It is no secret, so it may also be written out."""


class Secret(Struct, frozen=True):
    """The value must be `${ENV}` or `file:PATH`; anything written out is refused."""


class SecretUrl(Struct, frozen=True):
    """A URL in which only the secret part must come from `${ENV}`; the whole may, too."""


class Expect(Struct, frozen=True):
    """What a good value looks like, for error messages; used instead of a description made from the type."""

    text: str


# An editor that checks a plan against the JSON Schema reads `012` as a number: it must let any scalar pass here.
RawText = Annotated[str, Raw(), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]
_WHOLE_REFERENCE = r"^(\$\{[A-Za-z_][A-Za-z0-9_]*\})+$|^file:.+"
SecretText = Annotated[SecretStr, Secret(), WithJsonSchema({"type": "string", "pattern": _WHOLE_REFERENCE})]
SecretUrlText = Annotated[SecretStr, SecretUrl(), WithJsonSchema({"type": "string"})]
ReferringText = Annotated[str, Refers()]
RawAny = Annotated[Any, Raw()]
