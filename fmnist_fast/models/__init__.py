"""Trained models: a network with its metadata, ensembles, model files, pretrained models, export.

May import `nn` and what lies below it; not `data`.
"""
