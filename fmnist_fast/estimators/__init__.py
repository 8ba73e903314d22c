"""Estimators for scikit-learn, on the kernels of this package. Needs the extra `sklearn`.

May import `training` and what lies below it.
"""
