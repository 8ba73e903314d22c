"""Options and help of the commands, one module each, without the code that runs them.

May import click, `cli.options` and `cli.lazy` only: `--help` must not wait for NumPy.
"""
