"""Benchmarks of this package and of others on this machine, and of the phases of a training step.

`contenders` and `peers` define what is measured, `rounds` interleaves it, `measurement` makes the
report, `machine` describes the hardware. May import `estimators` and the packages below it; not
`distributed`.
"""
