"""From YAML nodes to plain data, led by the models' types: which text is a number, which is just a text, and where.

A scalar becomes a number, a boolean or null only where the model asks for one; everywhere else its text in the file
counts, so that a table `012` or a value `1.0` stays what was written. Unknown and doubled keys are found here, since
only here are their lines known.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Struct, field
from pydantic import BaseModel, SecretStr
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from forcelift.errors import Problem
from forcelift.plan.markers import Raw
from forcelift.plan.yaml_text import DEPTH_MAX

Path = tuple[str | int, ...]
Position = tuple[int, int]

# Aliases let a small file stand for an endless one; a plan of a thousand tables has some 100,000 nodes.
NODES_MAX = 300_000

# The scalars of YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3.2); `yes`, `no`, `on`, `off` are texts.
_NULL = re.compile(r"(~|null|Null|NULL|)\Z")
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}\Z")
_NUMBER = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?\Z")
_PLAIN_TAGS = {"str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp", "value"}
_TAG_PREFIX = "tag:yaml.org,2002:"

ScalarHook = Callable[[str, tuple[Any, ...], Path, Position], str | SecretStr]


class Shaped(Struct):
    """What became of a tree of nodes."""

    data: Any = None
    positions: dict[Path, Position] = field(default_factory=dict)
    annotations: dict[Path, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)  # list items that have a name, such as tables

    def name(self, path: Path) -> str:
        """The path as people read it: `tables.KPS_M_TENANT.fields.NAME`."""
        parts: list[str] = []
        for index, part in enumerate(path):
            if isinstance(part, str):
                parts.append(part)
            elif (name := self.names.get(path[: index + 1])) is not None:
                parts.append(name)
            elif parts:
                parts[-1] += f"[{part + 1}]"
            else:
                parts.append(f"[{part + 1}]")
        return ".".join(parts)

    def position(self, path: Path) -> Position | None:
        """Line and column of that place, or of the nearest place around it."""
        for length in range(len(path), -1, -1):
            if (position := self.positions.get(path[:length])) is not None:
                return position
        return None

    def problem(self, message: str, path: Path, *, hint: str | None = None, at: Position | None = None) -> Problem:
        """A problem at that place; `at` names another line than the place's own."""
        line, column = at or self.position(path) or (None, None)
        return Problem(message=message, path=self.name(path), line=line, column=column, hint=hint)


def shape(root: Node, model: type[BaseModel], *, scalar: ScalarHook) -> Shaped:
    """Turn a tree of nodes into data for `model`.

    Args:
        scalar: Called with each text's value, the type's alternatives, path and position; gives the text to use. It
            resolves secrets and may add to `notes` and `problems` of its own.
    Returns:
        Data without unknown keys, the place of everything, and all problems found on the way.
    """
    shaper = _Shaper(scalar)
    shaper.out.data = shaper.value(root, model, ())
    return shaper.out


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    options = list(known)
    folded = {option.casefold(): option for option in options}
    if word.casefold() in folded:
        return folded[word.casefold()]
    import difflib  # for a plan that has a fault

    found = difflib.get_close_matches(word.casefold()[:200], list(folded), n=1, cutoff=0.7)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest known word; None if nothing is near."""
    near = nearest(word, known)
    return None if near is None else f"did you mean `{near}`?"


def alternatives(annotation: Any) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
    """The members of a type's unions, each with all marks that stand around it."""
    return tuple(_alternatives(annotation, ()))


def _alternatives(annotation: Any, marks: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *own = get_args(annotation)
        yield from _alternatives(inner, (*marks, *own))
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member, marks)
    else:
        yield annotation, marks


def model_keys(model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a model with their types, marks included."""
    return {name: info.rebuild_annotation() for name, info in model.model_fields.items()}


def shown(text: str) -> str:
    """A value as an error message shows it: in one line, and not at length."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return f"`{line[:37]}...`" if len(line) > 40 else f"`{line}`"


class _Shaper:
    def __init__(self, scalar: ScalarHook) -> None:
        self.out = Shaped()
        self._scalar = scalar
        self._open: list[int] = []
        self._nodes = 0
        self._excess = False

    def value(self, node: Node, annotation: Any, path: Path) -> Any:
        self._nodes += 1
        self.out.positions.setdefault(path, _place(node))
        self.out.annotations[path] = annotation
        if id(node) in self._open:
            self._report("an alias stands inside the thing that it names", path, node)
            return None
        if self._is_too_large(node, path):
            return None
        tag = str(node.tag).removeprefix(_TAG_PREFIX)
        if tag not in _PLAIN_TAGS:
            # The tag is not repeated: it may be a password that begins with an exclamation mark.
            self._report("a plan has no use for tags (`!...`)", path, node, hint="quote a text that begins with `!`")
        options = alternatives(annotation)
        self._open.append(id(node))
        try:
            if isinstance(node, ScalarNode):
                return self._text(node, options, path)
            if isinstance(node, MappingNode):
                return self._mapping(node, options, path)
            assert isinstance(node, SequenceNode)
            return self._sequence(node, options, path)
        finally:
            self._open.pop()

    def _is_too_large(self, node: Node, path: Path) -> bool:
        """Aliases can nest without end, and stand for more than memory holds: the first excess is reported."""
        if self._nodes <= NODES_MAX and len(self._open) <= DEPTH_MAX:
            return False
        if not self._excess:
            self._excess = True
            self._report(f"aliases make the plan larger than {NODES_MAX:,} values or {DEPTH_MAX} levels", path, node)
        return True

    def _text(self, node: ScalarNode, options: tuple[tuple[Any, tuple[Any, ...]], ...], path: Path) -> Any:
        text = str(node.value)
        is_plain = node.style is None and str(node.tag) != _TAG_PREFIX + "str"
        types_ = [option for option, _ in options]
        marks = tuple(mark for _, own in options for mark in own)
        is_raw = any(isinstance(mark, Raw) for mark in marks)
        if is_plain and _NULL.match(text) and (type(None) in types_ or not is_raw):
            return None
        if is_plain and not is_raw:
            is_open = Any in types_
            if (bool in types_ or is_open) and text in _BOOLEAN:
                return _BOOLEAN[text]
            if (is_open or float in types_ or _takes_integers(types_)) and _INTEGER.match(text):
                return int(text)
            if (float in types_ or is_open) and _NUMBER.match(text):
                return float(text)
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
            self._report("the text holds half of a character (a lone surrogate)", path, node)
            return text.encode("utf-8", "replace").decode("utf-8")
        if is_raw and is_plain and text in ("null", "Null", "NULL", "~"):
            self.out.notes.append(
                self.out.problem(f"{shown(text)} is a text here, not a null", path, hint=f'write "{text}" to say so')
            )
        return self._scalar(text, (*types_, *marks), path, _place(node))

    def _mapping(self, node: MappingNode, options: tuple[tuple[Any, tuple[Any, ...]], ...], path: Path) -> Any:
        model = next((option for option, _ in options if _is_model(option)), None)
        keys = model_keys(model) if model is not None else None
        value_type = _value_type(options)
        result: dict[str, Any] = {}
        for key, key_node, value_node in self._pairs(node, path):
            inner = (*path, key)
            if keys is not None and key not in keys:
                self._unknown_key(key, keys, path, key_node)
                continue
            self.out.positions[inner] = _place(key_node)
            result[key] = self.value(value_node, keys[key] if keys is not None else value_type, inner)
        return result

    def _unknown_key(self, key: str, keys: Iterable[str], path: Path, node: Node) -> None:
        head, colon, _ = key.partition(":")
        if colon:
            # What stands behind the colon was meant as a value, perhaps a secret: it is not repeated.
            self._report(f"unknown key {shown(head + ':...')}", path, node, hint="write a blank after the `:`")
        else:
            hint = did_you_mean(key, keys) or f"known here: {', '.join(keys)}"
            self._report(f"unknown key {shown(key)}", path, node, hint=hint)

    def _pairs(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Node, Node]]:
        """Keys and values of a mapping, `<<` resolved; own keys first, and win."""
        seen: dict[str, Position] = {}
        merged: list[tuple[Node, Node]] = []
        self._nodes += 1
        if self._is_too_large(node, path):
            return
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._report("a key must be a text", path, key_node)
            elif key_node.style is None and key_node.value == "<<" and not isinstance(value_node, ScalarNode):
                merged.append((key_node, value_node))
            elif key_node.value in seen:
                first = seen[key_node.value][0]
                self._report(f"the key {shown(key_node.value)} is given twice, first in line {first}", path, key_node)
            else:
                seen[key_node.value] = _place(key_node)
                yield str(key_node.value), key_node, value_node
        for key_node, value_node in merged:
            for source in value_node.value if isinstance(value_node, SequenceNode) else [value_node]:
                if not isinstance(source, MappingNode):
                    self._report("`<<` takes a map or a list of maps", path, key_node)
                    continue
                if id(source) in self._open:
                    self._report("an alias stands inside the thing that it names", path, key_node)
                    continue
                self._open.append(id(source))
                try:
                    pairs = [pair for pair in self._pairs(source, path) if pair[0] not in seen]
                finally:
                    self._open.pop()
                for pair in pairs:
                    seen[pair[0]] = _place(pair[1])
                    yield pair

    def _sequence(self, node: SequenceNode, options: tuple[tuple[Any, tuple[Any, ...]], ...], path: Path) -> Any:
        lists = [option for option, _ in options if get_origin(option) in (tuple, list)]
        item_type = get_args(lists[0])[0] if lists else _value_type(options)
        result = []
        for index, item in enumerate(node.value):
            inner = (*path, index)
            name = _item_name(item)
            if name is not None:
                self.out.names[inner] = name
            result.append(self.value(item, item_type, inner))
        return result

    def _report(self, message: str, path: Path, node: Node, *, hint: str | None = None) -> None:
        self.out.problems.append(self.out.problem(message, path, hint=hint, at=_place(node)))


def _takes_integers(options: Iterable[Any]) -> bool:
    return any(
        option is int or (get_origin(option) is Literal and any(isinstance(one, int) for one in get_args(option)))
        for option in options
    )


def _is_model(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


def is_text(option: Any) -> bool:
    """True for the types that hold a text as it stands."""
    return option in (str, SecretStr) or (isinstance(option, type) and issubclass(option, Enum))


def _value_type(options: tuple[tuple[Any, tuple[Any, ...]], ...]) -> Any:
    for option, marks in options:
        if get_origin(option) is dict:
            return get_args(option)[1]
        if option is Any and any(isinstance(mark, Raw) for mark in marks):
            return Annotated[Any, Raw()]
    return Any


def _item_name(node: Node) -> str | None:
    """The name of a list item that is a table or a check."""
    if isinstance(node, MappingNode):
        for wanted in ("table", "name"):
            for key, value in node.value:
                if (
                    isinstance(key, ScalarNode)
                    and key.value == wanted
                    and isinstance(value, ScalarNode)
                    and value.value
                ):
                    return shown(str(value.value)).strip("`")
    return None


def _place(node: Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1
