"""Only what pyproject.toml cannot say. All of it can, until there is something to compile."""

from setuptools import setup

setup()
