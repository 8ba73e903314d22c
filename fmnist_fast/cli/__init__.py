"""The command line: one module for each command, loaded when the command is used.

Also all text, tables and plots of the commands; lower packages return data and do not format it.
May import every other package.
"""
