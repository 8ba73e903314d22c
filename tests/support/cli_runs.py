"""Runs of the command line in this process, on the small data set."""

from PIL import Image

__all__ = ["FAST", "save_image"]

FAST = ["--epochs", "1", "--hidden", "8", "--threads", "1", "--backend", "numpy"]


def save_image(path, pixels):
    Image.fromarray(pixels).save(path)
    return path
