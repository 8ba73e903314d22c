"""Assertions about messages, by their essential parts."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def assert_one_line(text: str, *parts: str) -> None:
    """Check that the text is one line and contains every part, in any order and case."""
    line = text.strip()
    assert "\n" not in line, text
    assert_contains(line, *parts)


def assert_contains(text: str, *parts: str) -> None:
    """Check that the text contains every part, in any order and case; line breaks are spaces."""
    folded = " ".join(text.split()).casefold()
    missing = [part for part in parts if " ".join(part.split()).casefold() not in folded]
    assert not missing, f"{missing} not in {text!r}"


@contextmanager
def raises_containing(kind: type[BaseException], *parts: str) -> Iterator[None]:
    """Check that the block raises an error of this kind whose text contains every part."""
    with pytest.raises(kind) as caught:
        yield
    assert_contains(str(caught.value), *parts)
