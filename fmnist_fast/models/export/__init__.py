"""Export of a network to formats of other programs: ONNX, NumPy, C source, Python source.

`formats.export` is the entry point; each other module writes one format. May import `nn` and what
lies below it.
"""
