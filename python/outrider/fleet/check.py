"""Compares values with the types of spec.py and finds every difference, not only the first."""

from __future__ import annotations

import difflib
import re
from typing import Any

from msgspec import inspect

from outrider.fleet.source import Place, Source


def check(source: Source, value: Any, kind: Any, place: Place) -> list[str]:
    """One line for everything in `value` that `kind`, a type of spec.py, does not allow."""
    return _check(source, value, inspect.type_info(kind), place)


def _check(source: Source, value: Any, kind: inspect.Type, place: Place) -> list[str]:
    if isinstance(kind, inspect.UnionType):
        return _union(source, value, kind, place)
    if isinstance(kind, inspect.StructType):
        return _struct(source, value, kind, place)
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        found = []
        for key, item in value.items():
            if not isinstance(key, str):
                found.append(_odd_key(source, key, place))
            found += _check(source, item, kind.value_type, (*place, key))
        return found
    if isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        found = []
        for index, item in enumerate(value):
            found += _check(source, item, kind.item_type, (*place, index))
        return found
    return _leaf(source, value, kind, place)


def _struct(source: Source, value: Any, kind: inspect.StructType, place: Place) -> list[str]:
    if not isinstance(value, dict):
        return [source.at(place, f"found {_show(value)}, allowed: a mapping of {', '.join(_names(kind)[:6])}, ...")]
    fields = {field.encode_name: field.type for field in kind.fields}
    lacking = [field.encode_name for field in kind.fields if field.required and field.encode_name not in value]
    found = [source.at(place, f"`{name}` is missing") for name in lacking]
    for key, item in value.items():
        if key in fields:
            found += _check(source, item, fields[key], (*place, key))
        else:
            near = difflib.get_close_matches(str(key), fields, 1)
            advice = f"did you mean `{near[0]}`?" if near else f"allowed: {', '.join(fields)}"
            found.append(source.at((*place, key), f"unknown key `{key}`; {advice}"))
    return found


def _union(source: Source, value: Any, kind: inspect.UnionType, place: Place) -> list[str]:
    """Follow the member that the value's shape picks, so that an error inside it is named where it is."""
    for member in kind.types:
        shaped = (
            (isinstance(member, inspect.StructType | inspect.DictType) and isinstance(value, dict))
            or (isinstance(member, inspect.VarTupleType) and isinstance(value, list))
            or (isinstance(member, inspect.NoneType) and value is None)
        )
        if shaped:
            return _check(source, value, member, place)
    if any(not _leaf(source, value, member, place) for member in kind.types):
        return []
    allowed = " or ".join(_allowed(member) for member in kind.types if not isinstance(member, inspect.NoneType))
    return [source.at(place, f"found {_show(value)}, allowed: {allowed}")]


def _leaf(source: Source, value: Any, kind: inspect.Type, place: Place) -> list[str]:
    if isinstance(kind, inspect.AnyType):
        return _any(source, value, place)
    if _fits(value, kind) and _in_range(value, kind):
        return []
    advice = " (write it in quotes)" if isinstance(kind, inspect.StrType) and isinstance(value, int | float) else ""
    return [source.at(place, f"found {_show(value)}, allowed: {_allowed(kind)}{advice}")]


def _any(source: Source, value: Any, place: Place) -> list[str]:
    """Anything goes that is still the same after a way through JSON: keys must be text."""
    found = []
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                found.append(_odd_key(source, key, place))
            found += _any(source, item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _any(source, item, (*place, index))
    return found


def _odd_key(source: Source, key: Any, place: Place) -> str:
    return source.at((*place, key), f"found the key {key!r}, allowed: text (write it in quotes)")


def _fits(value: Any, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    if isinstance(value, bool):
        return isinstance(kind, inspect.BoolType)
    plain = {inspect.StrType: str, inspect.IntType: int, inspect.FloatType: int | float, inspect.NoneType: type(None)}
    wanted = plain.get(type(kind))
    return wanted is not None and isinstance(value, wanted)


def _in_range(value: Any, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        low = (kind.ge is None or value >= kind.ge) and (kind.gt is None or value > kind.gt)
        return low and (kind.le is None or value <= kind.le)
    if isinstance(kind, inspect.StrType) and kind.pattern:
        return re.search(kind.pattern, value) is not None
    return True


def _allowed(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(str(value) for value in kind.values)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        name = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        bounds = [(kind.ge, "from"), (kind.gt, "above"), (kind.le, "to")]
        return " ".join([name, *(f"{word} {bound:g}" for bound, word in bounds if bound is not None)])
    if isinstance(kind, inspect.StrType):
        return f"text like {kind.pattern}" if kind.pattern else "text"
    if isinstance(kind, inspect.StructType):
        return f"a mapping of {', '.join(_names(kind))}"
    names = {inspect.BoolType: "true or false", inspect.VarTupleType: "a list", inspect.DictType: "a mapping"}
    return names.get(type(kind), "nothing")


def _names(kind: inspect.StructType) -> list[str]:
    return [field.encode_name for field in kind.fields]


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "nothing"}
    return f"{value!r} ({kinds.get(type(value), type(value).__name__)})" if value is not None else "nothing"
