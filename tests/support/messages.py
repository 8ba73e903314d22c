"""One way to assert messages: by their essential parts, not word by word."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def assert_one_line(text: str, *parts: str) -> None:
    """The text is one line, and holds every part, in any order and case."""
    line = text.strip()
    assert "\n" not in line, text
    assert_says(line, *parts)


def assert_says(text: str, *parts: str) -> None:
    """The text holds every part, in any order and case; line breaks count as spaces."""
    folded = " ".join(text.split()).casefold()
    missing = [part for part in parts if " ".join(part.split()).casefold() not in folded]
    assert not missing, f"{missing} not in {text!r}"


@contextmanager
def raises_saying(kind: type[BaseException], *parts: str) -> Iterator[None]:
    """The block raises an error of this kind, whose text holds every part: see `assert_says`."""
    with pytest.raises(kind) as caught:
        yield
    assert_says(str(caught.value), *parts)
