"""The exception tree in the code is the one drawn at the top of the file."""

from __future__ import annotations

import builtins
import inspect
import re

import pytest

from cipherlearn import errors

# "│   ├── Name (Builtin)     what it means": the position of the name is its depth.
DRAWN = re.compile(r"^[│├└─ ]*(?P<name>[A-Z]\w+)(?: \((?P<builtin>\w+)\))?(?:\s{2,}|$)")
INDENT = 4


def read_tree(text: str) -> dict[str, tuple[str | None, str | None]]:
    """Name -> (name of the parent, built-in in parentheses) of every line of a drawn tree."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in inspect.cleandoc(text).split("::", 1)[1].splitlines():
        found = DRAWN.match(line)
        if found is None:
            continue
        depth = (found.start("name") - INDENT) // INDENT
        name = found["name"]
        tree[name] = (path[depth - 1] if depth else None, found["builtin"])
        path = [*path[:depth], name]
    return tree


def defined() -> dict[str, type]:
    return {
        name: member
        for name, member in vars(errors).items()
        if inspect.isclass(member) and member.__module__ == errors.__name__
    }


TREE = read_tree(errors.__doc__ or "")


def test_reading_a_drawn_tree() -> None:
    drawn = """Title.

    ::

        Base
        ├── Middle (ValueError)    a meaning
        │   └── Leaf               another
        └── Other (KeyError)       more

        Second (UserWarning)
    Prose, with Capitals (and parentheses) afterwards.
    """
    assert read_tree(drawn) == {
        "Base": (None, None),
        "Middle": ("Base", "ValueError"),
        "Leaf": ("Middle", None),
        "Other": ("Base", "KeyError"),
        "Second": (None, "UserWarning"),
    }


def test_every_class_is_drawn_and_every_drawn_class_exists() -> None:
    assert set(TREE) == set(defined())


@pytest.mark.parametrize("name", sorted(TREE))
def test_parents_are_the_drawn_ones(name: str) -> None:
    parent, builtin = TREE[name]
    bases = {base.__name__ for base in defined()[name].__bases__}
    expected = {parent, builtin} - {None}
    assert bases == (expected or {"Exception"})
    assert builtin is None or hasattr(builtins, builtin)


@pytest.mark.parametrize("name", sorted(TREE))
def test_every_class_carries_its_message_and_says_what_it_means(name: str) -> None:
    error = defined()[name]
    assert str(error("it's a 'message'\nof two lines")) == "it's a 'message'\nof two lines"
    assert inspect.getdoc(error) != inspect.getdoc(error.__bases__[0])


def test_warnings_point_at_the_callers_line() -> None:
    with pytest.warns(errors.OverflowWarning, match="too large") as caught:
        errors.warn("too large", errors.OverflowWarning)
    assert caught[0].filename == __file__
