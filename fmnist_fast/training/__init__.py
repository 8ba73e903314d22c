"""Training: configurations and presets, the training loop, checkpoints, budgets, distillation.

May import `data`, `models` and what lies below them; not `vision`.
"""
