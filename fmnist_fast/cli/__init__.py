"""The command line: `commands/` declares the commands, one module each runs them (see `lazy.py`).

Also all text, tables and plots of the commands; lower packages return data and do not format it.
May import every other package.
"""
