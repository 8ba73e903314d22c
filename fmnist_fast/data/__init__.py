"""Data sets: loading, downloading, caching, the synthetic data set, and augmentation.

May import `nn` and what lies below it; not `models`.
"""
