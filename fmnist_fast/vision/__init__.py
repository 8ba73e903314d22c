"""From a picture file to a prediction: reading, segmentation, preprocessing, recognition.

May import `data`, `models` and what lies below them; not `training`.
"""
