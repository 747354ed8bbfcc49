"""A Python callable as a tool: its schema from signature and docstring, and validating a call's arguments.

Running the calls is in `box.py`.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable
from typing import Any

from docstring_parser import parse as parse_docstring
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model

from rlm_env.llm.base import ToolSchema
from rlm_env.protocol import TOOL_NAME
from rlm_env.repl.bounds import first_line

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class Tool:
    """A callable with its schema. `function` may be sync (it runs in a thread) or async; its parameters are typed.

    The model sees the docstring, with descriptions of the parameters from there (Google, NumPy or reST style) or from
    `Annotated[..., pydantic.Field(description=...)]`. Arguments are validated, so the function gets what its signature
    says. It returns text, or anything that can be written as JSON.

    `timeout` (seconds) and `max_chars` (characters of the result, at least 200): None for those of the rollout.
    Raises ValueError where no schema can be made of the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        max_chars: int | None = None,
    ) -> None:
        self.function = function
        self.timeout = timeout
        self.max_chars = max_chars
        self.name = name or getattr(function, "__name__", "")
        if not _NAME.fullmatch(self.name) or self.name == TOOL_NAME:
            raise ValueError(
                f"a tool cannot be called {self.name!r}: pass name=, letters, digits and _, not {TOOL_NAME}"
            )
        if max_chars is not None and max_chars < 200:
            raise ValueError(f"tool {self.name!r}: max_chars={max_chars} must be at least 200")
        self._names, self._model, self.schema = _described(function, self.name, description)
        self.description: str = self.schema["function"]["description"]

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return re.split(r"(?<=[.!?])\s", " ".join(self.description.split()), maxsplit=1)[0]

    @property
    def signature(self) -> str:
        """The call with names and types of its arguments, for models without native tool calls."""
        schema = self.schema["function"]["parameters"]
        required = schema.get("required", ())
        shown = [_shown(name, part, name in required) for name, part in schema["properties"].items()]
        return f"{self.name}({', '.join(shown)})"

    def arguments(self, raw: Any) -> dict[str, Any]:
        """The validated keyword arguments of a call, from the model's text. Raises ValueError, worded for the model."""
        if isinstance(raw, str):
            try:
                raw = json.loads(raw) if raw.strip() else {}
            except (ValueError, RecursionError) as error:
                raise ValueError(f"the arguments are not valid JSON ({error})") from None
        if not isinstance(raw, dict):
            raise ValueError(f"the arguments must be a JSON object, not {type(raw).__name__}")
        try:
            values = self._model.model_validate(raw)
        except ValidationError as error:
            raise ValueError("; ".join(map(_problem, error.errors(include_url=False)[:5]))) from None
        return {name: getattr(values, _field(index)) for index, name in enumerate(self._names)}


Description = tuple[list[str], type[BaseModel], ToolSchema]
"""Names of the parameters, the model that validates them, and the tool's schema."""

_KEPT: dict[tuple[Any, ...], tuple[Any, Description]] = {}
"""By the id of the code object, which is kept alive too. Not by the code object itself: equal ones may belong to
different modules."""
_MOST_KEPT = 256


def _described(function: Callable[..., Any], name: str, description: str | None) -> Description:
    """The description of a function, cached by code and signature: environments make the same closures for every
    rollout, and building a pydantic model takes milliseconds."""
    signature = inspect.signature(function)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    key = (id(code), name, description, function.__doc__, str(signature))
    if code is not None and key in _KEPT:
        return _KEPT[key][1]
    found = _describe(function, name, description, list(signature.parameters.values()))
    if code is not None:
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.clear()
        _KEPT[key] = (code, found)
    return found


def _describe(
    function: Callable[..., Any], name: str, description: str | None, parameters: list[inspect.Parameter]
) -> Description:
    """Reads signature and docstring of a function into a schema."""
    doc = parse_docstring(inspect.getdoc(function) or "")
    description = description or (doc.description or "").strip()
    if not description:
        raise ValueError(f"tool {name!r} has no docstring: models read it to know what the tool does")
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"tool {name!r}: a model calls by name, which {parameter} does not allow")
        if parameter.annotation is parameter.empty:
            raise ValueError(f"tool {name!r}: parameter {parameter.name!r} has no type annotation")
    described = {p.arg_name: " ".join(p.description.split()) for p in doc.params if p.description}
    model, schema = _arguments_model(name, function, parameters, described)
    schema = {"properties": {}, **_untitled(schema)}
    schema.pop("description", None)  # pydantic's own words about the model
    schema = {"name": name, "description": description, "parameters": schema}
    return [p.name for p in parameters], model, {"type": "function", "function": schema}


def _arguments_model(
    name: str, function: Callable[..., Any], parameters: list[inspect.Parameter], described: dict[str, str]
) -> tuple[type[BaseModel], dict[str, Any]]:
    """The model that validates a call's arguments, and its JSON schema. Its fields are called `argument_0` and so on,
    since no pydantic model can have a field called `schema`."""
    try:
        hints = typing.get_type_hints(_annotated(function), include_extras=True)
        fields: dict[str, Any] = {}
        for index, parameter in enumerate(parameters):
            default = ... if parameter.default is parameter.empty else parameter.default
            field = Field(default, alias=parameter.name)
            if parameter.name in described:  # otherwise a description in `Annotated` holds
                field = Field(default, alias=parameter.name, description=described[parameter.name])
            fields[_field(index)] = (hints[parameter.name], field)
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        return model, model.model_json_schema()
    except (PydanticUserError, NameError) as error:
        raise ValueError(f"tool {name!r}: no schema can be made of its parameters: {first_line(str(error))}") from error


def _annotated(function: Any) -> Any:
    """The function that carries the annotations: that of a partial, or the `__call__` of an object."""
    function = getattr(function, "func", function)
    return function if inspect.isroutine(function) else type(function).__call__


def _field(index: int) -> str:
    return f"argument_{index}"


def _shown(name: str, schema: dict[str, Any], required: bool) -> str:
    kind = schema.get("type") or "/".join(part.get("type", "any") for part in schema.get("anyOf", [{}]))
    default = "" if required else f" = {json.dumps(schema.get('default'), ensure_ascii=False)}"
    return f"{name}: {kind}{default}"


def _untitled(schema: Any) -> Any:
    """A schema without pydantic's titles, which repeat the names and cost tokens. A parameter called `title` stays."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _untitled(item) for name, item in value.items()}
        if key in ("properties", "$defs")
        else _untitled(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


def _problem(problem: Any) -> str:
    return f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
