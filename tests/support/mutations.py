"""Mutations of files and JSON, drawn from a seed."""

import random
from copy import deepcopy
from typing import Any

__all__ = ["mutate_bytes", "mutate_json"]

# Half of the changes are so close to the begin or the end, where formats have their headers.
HEADER_BYTES = 400

VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    10**30,
    0.5,
    1e300,
    1e-300,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\udcff",
    [],
    [1],
    {},
    {"a": 1},
)


def mutate_bytes(content: bytes, draws: random.Random) -> bytes:
    """Overwrite, insert, delete or repeat some bytes, or cut the end off, one to four times."""
    mutated = bytearray(content)
    for _ in range(draws.randint(1, 4)):
        place = draws.randrange(len(mutated) + 1)
        if draws.random() < 0.5:
            place = min(place, draws.randrange(HEADER_BYTES))
            place = draws.choice((place, max(0, len(mutated) - place)))
        end = place + draws.choice((1, 1, 2, 4, 8, 64))
        match draws.randrange(6):
            case 0 | 1:
                mutated[place:end] = draws.randbytes(len(mutated[place:end]))
            case 2:
                mutated[place:end] = bytes([draws.choice((0, 255, 127, 128))]) * (end - place)
            case 3:
                mutated[place:place] = draws.randbytes(end - place)
            case 4:
                del mutated[place:end]
            case 5:
                if draws.random() < 0.3:
                    del mutated[place:]
                else:
                    mutated[place:place] = mutated[place:end]
    return bytes(mutated)


def mutate_json(value: Any, draws: random.Random) -> Any:
    """Replace, remove, rename or repeat one to three parts of plain JSON, at any depth."""
    mutated = deepcopy(value)
    for _ in range(draws.randint(1, 3)):
        parts = list(_containers(mutated))
        if not parts:
            return mutated
        part = draws.choice(parts)
        key = draws.choice(list(part) if isinstance(part, dict) else range(len(part)))
        match draws.randrange(6):
            case 0:
                part.pop(key)
            case 1 if isinstance(part, dict):
                part[f"{key}x"] = part.pop(key)
            case 2 if isinstance(part, list):
                part.append(deepcopy(part[key]))
            case 3:
                part[key] = deepcopy(part)
            case _:
                part[key] = deepcopy(draws.choice(VALUES))
    return mutated


def _containers(value: Any):
    """Yield all objects and lists of a document that hold something."""
    if isinstance(value, dict | list):
        if value:
            yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)
