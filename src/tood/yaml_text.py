"""YAML as configurations are written in it: in files, and in a word of the command line."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import yaml


def parse(text: str) -> Any:
    """What a YAML or JSON document says.

    Raises:
        yaml.YAMLError: if it is none, or a key stands twice.
    """
    return yaml.load(text, _Loader)


def is_bad_escape(error: yaml.YAMLError) -> bool:
    """Whether a backslash between double quotes is what a document fails at; PyYAML tells it by its sentence alone."""
    return isinstance(error, yaml.scanner.ScannerError) and "escape" in (error.problem or "")


def dump(content: Any, comment: str = "") -> str:
    """A document that `parse` reads back equal, below lines of comment."""
    body = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return "".join(f"# {_printable(line)}\n" for line in comment.splitlines()) + body


class Word(NamedTuple):
    """A value of the command line.

    Attributes:
        value: what it says as YAML.
        text: what it says where text is expected.
    """

    value: Any
    text: str


def word(written: str) -> Word:
    """A value that the shell has delivered, whose blanks and quotes it has read already.

    As text it stands as it is, `#` and all: in a file a comment may follow a value, here it is part of a name.
    Quotes around the whole are YAML's, as in `name="null"`.
    """
    try:
        node, value = yaml.compose(written, _Loader), parse(written)
    except (yaml.YAMLError, RecursionError, ValueError):
        return Word(written, written)  # no YAML at all: a path such as *.jpg
    if node is None:
        return Word(written if written else None, written)
    whole = node.start_mark.index == 0 and node.end_mark.index >= len(written)
    if whole and isinstance(node, yaml.ScalarNode) and node.style in ("'", '"'):
        return Word(value, value)
    # null followed by a comment is no null, nor is a lone "!": all of it together is a name.
    return Word(written if value is None and node.value != written else value, written)


class _Loader(yaml.SafeLoader):
    r"""Refuses a key that stands twice, and reads JSON's "\ud83d\udcf7".

    JSON writes letters beyond U+FFFF as two halves, which YAML leaves apart: no file could then have such a name.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if (key := repeated_key(node)) is not None:
            raise yaml.constructor.ConstructorError(problem=f"'{key.value}' stands twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        return joined_halves(super().construct_scalar(node))


def repeated_key(mapping: yaml.MappingNode) -> yaml.ScalarNode | None:
    """The first key of a mapping that is in it before already, of which YAML would silently keep the last value."""
    seen: set[str] = set()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                return key
            seen.add(key.value)
    return None


def joined_halves(text: str) -> str:
    """The text with pairs of UTF-16 surrogates made the letters that they stand for; single ones stay."""
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


class _Dumper(yaml.SafeDumper):
    """Lists of scalars on one line, letters as they are, and what is no letter as an escape."""


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    flat = not any(isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Left to itself, PyYAML writes U+0085 bare and reads it as a blank.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)


def _printable(line: str) -> str:
    """What may stand in a comment: file names may hold bytes that are no UTF-8, and control characters."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)
