"""Typed configuration: frozen dataclasses to and from plain dicts and YAML, every error naming the key.

A configuration is a tree of frozen dataclasses whose leaves are bool, int, float, str, Path, None, Literal, tuples and
string-keyed mappings. Where a field may hold one of several dataclasses, each of them has a `Literal` field of one
common name (`kind`, `family`) with its own value, and that value decides.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

import yaml

from tood import yaml_text
from tood.errors import SettingError, ToodError, one_line
from tood.whole_file import whole_file

T = TypeVar("T")


def load(path: Path | str, cls: type[T]) -> T:
    """The configuration of type `cls` in a YAML file.

    Raises:
        ToodError: if the file is missing or no YAML, or a key is unknown, missing or of the wrong type.
    """
    path = Path(path)
    try:
        raw = yaml_text.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ToodError(f"cannot read the configuration {path}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ToodError(f"{path} is not valid YAML: {one_line(error)}") from error
    return from_dict(cls, {} if raw is None else raw, where=str(path))


def save(config: Any, path: Path | str, comment: str = "") -> None:
    """Writes a configuration as YAML that `load` reads back equal; the file appears whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(yaml_text.dump(to_dict(config), comment), encoding="utf-8")


def to_dict(config: Any) -> Any:
    """The configuration as dicts, lists and scalars, for YAML and JSON."""
    if is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in fields(config) if f.init}
    if isinstance(config, tuple | list):
        return [to_dict(item) for item in config]
    if isinstance(config, Mapping):
        return {str(key): to_dict(value) for key, value in config.items()}
    return str(config) if isinstance(config, Path) else config


def flat(config: Any) -> dict[str, str | int | float | bool]:
    """Scalars of a configuration by dotted key, as trackers list them; lists and null as text."""
    found: dict[str, str | int | float | bool] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else name)
        else:
            found[key] = value if isinstance(value, str | int | float) else str(value)

    walk(to_dict(config), "")
    return found


@overload
def from_dict(cls: type[T], raw: Any, where: str = "") -> T: ...
@overload
def from_dict(cls: types.UnionType, raw: Any, where: str = "") -> Any: ...
def from_dict(cls: Any, raw: Any, where: str = "") -> Any:
    """The configuration of type `cls` (a dataclass, or a union of them) from dicts, lists and scalars.

    Args:
        cls: what to build.
        raw: as `to_dict` gives it; left-out keys take their defaults.
        where: the file that `raw` came from, for the messages.

    Raises:
        ToodError: if a key is unknown, missing, or its value not of the field's type.
    """
    return _convert(cls, raw, _Place(where))


def apply_overrides(config: T, settings: Iterable[str], where: str = "--set") -> T:
    """The configuration with keys replaced, as in `["model.head.width=64", "optimizer.kind=sgd"]`.

    Values are written as in YAML, but text is taken as it stands, `#` and all, unless it is in quotes. Setting the
    discriminator of a union (`optimizer.kind`) changes to that member, whose fields keep the old values where names
    are shared and valid, and take their defaults elsewhere; a part of another class (an assigner, a head) is not kept,
    though its keys may have the same names. A value that does not go with the others of its part (a short side above
    the long one) is tried again after the settings behind it.

    Raises:
        ToodError: if a setting has no `=`, its key is unknown, or its value not of the field's type.
    """
    waiting = list(settings)
    while waiting:
        refused: list[tuple[str, _RefusedError]] = []
        for number, setting in enumerate(waiting):
            try:
                config = _overridden(config, setting, where)
            except _RefusedError as error:
                if _decides(setting, waiting[number + 1 :]):
                    raise
                refused.append((setting, error))
        if len(refused) == len(waiting):
            raise refused[0][1]
        waiting = [setting for setting, _ in refused]
    return config


def _decides(setting: str, behind: Sequence[str]) -> bool:
    """Whether settings behind it mean another thing if it comes after them: they set the same, or a part's kind."""
    (key,) = setting_keys([setting])
    return key.split(".")[-1] in ("kind", "family") or any(
        key == later or key.startswith(f"{later}.") for later in setting_keys(behind)
    )


def _overridden(config: T, setting: str, where: str) -> T:
    key, equals, text = setting.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise ToodError(f"{where} '{setting}': expected key=value, as in optimizer.lr=0.01")
    changed: T = _set(type(config), config, keys, text.strip(), _Place(where))
    return changed


def setting_keys(settings: Iterable[str]) -> set[str]:
    """The keys that such settings name."""
    return {setting.partition("=")[0].strip() for setting in settings}


class _WrongValueError(ToodError):
    """A value that is not of its field's type; `expected` says what would be."""

    def __init__(self, message: str, expected: str) -> None:
        super().__init__(message)
        self.expected = expected


class _RefusedError(ToodError):
    """A value that the own checks of its dataclass refuse, maybe for those of other fields."""


@dataclass(frozen=True)
class _Place:
    """Where in a configuration a value stands, for messages."""

    where: str = ""
    key: str = ""

    def __truediv__(self, key: str) -> _Place:
        return _Place(self.where, f"{self.key}.{key}" if self.key else key)

    def error(self, message: str) -> ToodError:
        return ToodError(self._located(message))

    def wrong(self, value: Any, expected: str) -> _WrongValueError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        message = f"{self.key or 'the configuration'} is {shown}: expected {expected}"
        return _WrongValueError(self._located(message), expected)

    def failed(self, error: Exception) -> _RefusedError:
        """For what the own checks of the dataclass at this place say."""
        if isinstance(error, SettingError):
            return _RefusedError(self._located(f"{self._whole(error.key)} {error.problem}"))
        return _RefusedError(self._located(f"{self.key}: {error}" if self.key else str(error)))

    def _located(self, message: str) -> str:
        return f"{self.where}: {message}" if self.where else message

    def _whole(self, key: str) -> str:
        """A key from the top on, of one that begins with any part of this place's, or behind it."""
        above, first = self.key.split(".") if self.key else [], key.partition(".")[0]
        if first in above:
            above = above[: above.index(first)]
        return ".".join([*above, key])

    def unknown(self, key: str, known: Iterable[str]) -> ToodError:
        names = list(known)
        close = get_close_matches(key, names, n=1, cutoff=0.5)
        hint = f"did you mean '{(_Place(key=self.key) / close[0]).key}'?" if close else f"known are {', '.join(names)}"
        return self.error(f"there is no key '{(self / key).key}': {hint}")


def _convert(kind: Any, value: Any, place: _Place, text: str | None = None) -> Any:
    """`value` as the type `kind`; `text` is how it was written on the command line, if it was."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(kind), value, place, text)
    if origin is Literal:
        return _convert_literal(get_args(kind), value, place)
    if origin is tuple:
        return _convert_tuple(get_args(kind), value, place)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise place.wrong(value, "a mapping of keys to values")
        return {str(key): _convert(get_args(kind)[1], item, place / str(key)) for key, item in value.items()}
    if is_dataclass(kind):
        return _convert_dataclass(kind, value, place)
    return _convert_scalar(kind, value, place, text)


def _convert_scalar(kind: Any, value: Any, place: _Place, text: str | None) -> Any:
    if kind is type(None) and value is None:
        return None
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float:
        number = _number(value)
        if number is not None:
            return number
    if kind in (str, Path):
        # On the command line, `data.train=2017` means the name, not the number, and `a #1` no comment.
        if text is not None and value is not None:
            return kind(text)
        if isinstance(value, str):
            return kind(value)
    if kind not in _EXPECTED:
        raise TypeError(f"{place.key}: the field's type {kind} cannot be configured")
    raise place.wrong(value, _EXPECTED[kind])


_EXPECTED = {
    type(None): "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text (in quotes, if it looks like something else)",
    Path: "a path (in quotes, if it looks like something else)",
}


def _number(value: Any) -> float | None:
    """A number, also in forms like 1e-4, which YAML 1.1 takes for text; nan is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _convert_literal(choices: tuple[Any, ...], value: Any, place: _Place) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    close = get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise place.wrong(value, f"{_one_of(choices)}{hint}")


def _convert_tuple(arguments: tuple[Any, ...], value: Any, place: _Place) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise place.wrong(value, "a list, as in [1, 2]")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise place.wrong(value, f"a list of {len(arguments)} values")
    pairs = zip(arguments, value, strict=True)
    return tuple(_convert(kind, item, place / str(i)) for i, (kind, item) in enumerate(pairs))


def _convert_union(members: tuple[Any, ...], value: Any, place: _Place, text: str | None) -> Any:
    if value is None and type(None) in members:
        return None
    members = tuple(member for member in members if member is not type(None))
    if len(members) == 1:
        return _convert(members[0], value, place, text)
    if all(is_dataclass(member) for member in members):
        if not isinstance(value, Mapping):
            raise place.wrong(value, "a mapping of keys to values")
        return _convert_dataclass(_member(members, value, place), value, place)
    reasons = []
    for member in members:
        try:
            return _convert(member, value, place, text)
        except ToodError as error:
            reasons.append(error.expected if isinstance(error, _WrongValueError) else str(error))
    raise place.wrong(value, " or ".join(reasons))


def _member(members: tuple[Any, ...], value: Mapping[str, Any], place: _Place) -> Any:
    """The dataclass of the union that the mapping's discriminator names."""
    name, choices = _discriminator(members)
    if name not in value:
        for member in members:
            if getattr(member, "UNNAMED_KIND", False):
                return member
        raise place.error(f"{(place / name).key} is missing: expected {_one_of(tuple(choices))}")
    return choices[_convert_literal(tuple(choices), value[name], place / name)]


@lru_cache(maxsize=256)
def _discriminator(members: tuple[Any, ...]) -> tuple[str, dict[Any, Any]]:
    """Name of the field by which the dataclasses of a union differ, and which value stands for which."""
    for field in fields(members[0]):
        kinds = [_types(member).get(field.name) for member in members]
        if all(get_origin(kind) is Literal for kind in kinds):
            pairs = [(value, member) for member, kind in zip(members, kinds, strict=True) for value in get_args(kind)]
            if len(dict(pairs)) == len(pairs):
                return field.name, dict(pairs)
    raise TypeError(f"{members} have no common Literal field that tells them apart")


def _convert_dataclass(cls: Any, value: Any, place: _Place) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise place.wrong(value, "a mapping of keys to values")
    kinds = _types(cls)
    older = [key for key in _older(cls) if key in value and key not in kinds]
    if older:
        config = _convert_dataclass(cls, {key: item for key, item in value.items() if key not in older}, place)
        for key in older:
            config = _set_older(config, key, value[key], None, place)
        return config
    for key in value:
        if key not in kinds:
            raise place.unknown(str(key), kinds)
    for field in fields(cls):
        if field.init and field.name not in value and not _has_default(field):
            raise place.error(f"{(place / field.name).key} is missing")
    given = [field for field in fields(cls) if field.name in value]
    meant = {field.name: _meant(field, kinds[field.name], value[field.name]) for field in given}
    return _build(cls, {key: _convert(meant[key], item, place / key) for key, item in value.items()}, place)


def _meant(field: Field[Any], kind: Any, value: Any) -> Any:
    """The type of a field's value: of a union whose member it does not name, that of the default, where it may be."""
    members = tuple(member for member in get_args(kind) if is_dataclass(member))
    if field.default_factory is MISSING or not isinstance(value, Mapping) or len(members) < 2:
        return kind
    default = type(field.default_factory())
    if default not in members or not getattr(default, "UNNAMED_KIND", False) or _discriminator(members)[0] in value:
        return kind
    return default


def _older(cls: Any) -> Mapping[str, tuple[Any, Callable[[Any, Any], Any]]]:
    """Keys that a class had in earlier versions: their types, and what changes a configuration as they did."""
    found: Mapping[str, tuple[Any, Callable[[Any, Any], Any]]] = getattr(cls, "OLDER", {})
    return found


def _set_older(config: Any, key: str, value: Any, text: str | None, place: _Place) -> Any:
    """The configuration as a key of an earlier version changes it."""
    kind, change = _older(type(config))[key]
    converted = _convert(kind, value, place / key, text)
    try:
        return change(config, converted)
    except ToodError as error:
        raise place.failed(error) from error


def _build(cls: Any, values: dict[str, Any], place: _Place) -> Any:
    """The dataclass; what its own checks say gets the place in front."""
    try:
        return cls(**values)
    except (ToodError, ValueError) as error:
        raise place.failed(error) from error


@lru_cache(maxsize=256)
def _types(cls: Any) -> dict[str, Any]:
    """Type of every field that can be set."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _set(kind: Any, current: Any, keys: list[str], text: str, place: _Place) -> Any:
    """`current`, which is of type `kind`, with the value at `keys` below it replaced."""
    if not keys:
        word = yaml_text.word(text)
        return _convert(kind, word.value, place, word.text)
    key, *deeper = keys
    if isinstance(current, tuple):
        key = _number_of(current, key)
        if not (key.isdigit() and int(key) < len(current)):
            raise place.unknown(key, [str(i) for i in range(len(current))])
        arguments = get_args(kind)
        item_kind = arguments[0] if arguments[-1] is Ellipsis else arguments[int(key)]
        items = list(current)
        items[int(key)] = _set(item_kind, current[int(key)], deeper, text, place / key)
        return tuple(items)
    members = tuple(member for member in get_args(kind) if is_dataclass(member)) or (kind,)
    if current is None and is_dataclass(members[0]):
        current = _convert_dataclass(members[0], {}, place)
    if not is_dataclass(current) or isinstance(current, type):
        raise place.wrong(current, f"nothing below it: it has no key '{key}'")
    if len(members) > 1 and not deeper and key == _discriminator(members)[0]:
        return _switch(members, current, key, text, place)
    kinds = _types(type(current))
    if key not in kinds and key in _older(type(current)) and not deeper:
        word = yaml_text.word(text)
        return _set_older(current, key, word.value, word.text, place)
    if key not in kinds:
        raise place.unknown(key, kinds)
    value = _set(kinds[key], getattr(current, key), deeper, text, place / key)
    try:
        return replace(current, **{key: value})
    except (ToodError, ValueError) as error:
        raise (place if isinstance(error, SettingError) else place / key).failed(error) from error


def _number_of(items: tuple[Any, ...], key: str) -> str:
    """The number of a tuple's only item of a kind that a key may name instead; the key itself if there is none."""
    found = [number for number, item in enumerate(items) if getattr(item, "kind", None) == key]
    return str(found[0]) if len(found) == 1 else key


def _switch(members: tuple[Any, ...], current: Any, key: str, text: str, place: _Place) -> Any:
    """Another member of the union, with what it shares with the current one."""
    chosen = _member(members, {key: text}, place)
    if isinstance(current, chosen):
        return current
    values: dict[str, Any] = {}
    for name, kind in _types(chosen).items():
        if name != key and hasattr(current, name):
            value = getattr(current, name)
            if is_dataclass(value) and type(value) not in (get_args(kind) or (kind,)):
                continue
            try:
                values[name] = _convert(kind, to_dict(value), place / name)
            except ToodError:
                continue
    return _build(chosen, values, place)


def _one_of(choices: tuple[Any, ...]) -> str:
    names = [str(choice) for choice in choices]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
