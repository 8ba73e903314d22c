"""Benchmarks of this package beside others on this machine, and of the phases of a training step.

`contenders` and `peers` define what is measured, `measurement` interleaves the rounds, `machine`
describes the hardware. May import `estimators` and what lies below it; not `distributed`.
"""
