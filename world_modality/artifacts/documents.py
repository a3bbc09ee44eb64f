"""Documents: JSON artifacts whose schema is a pydantic model, written as plain data and read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from world_modality.artifacts.records import read_content
from world_modality.errors import InputError


class Document(BaseModel):
    """A JSON artifact, or a part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Plain data for `files.write_json`."""
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the document, without its record.

        Raises:
            InputError: as `read_document`.
        """
        return read_document(cls, path, f"a {Path(path).name}")


def read_document[Model: BaseModel](model: type[Model], path: str | Path, kind: str) -> Model:
    """Read a JSON artifact as a model, without its record.

    Args:
        kind: what the file should be, for the error message: "an evaluation".

    Raises:
        InputError: it is missing, truncated or malformed; the message names the first offending key.
    """
    try:
        return model.model_validate_json(json.dumps(read_content(path)))  # pydantic has other rules for Python objects
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise InputError(f"{path}: not {kind}: {where}: {first['msg']}") from None
