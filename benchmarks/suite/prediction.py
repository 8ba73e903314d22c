"""Predictions, from Python, with the checks of what goes in."""

import numpy as np

from .cases import BACKENDS, DATASET, dataset, skip_if_missing, training


class Predict:
    params = BACKENDS
    param_names = ("backend",)
    version = DATASET

    def setup(self, backend):
        skip_if_missing(backend)
        self.network = training(backend, rows=1)[0]
        self.images = np.resize(dataset().x_test, (10_000, 784))
        self.network.predict_proba(self.images)

    def time_one_image_1000_times(self, backend):
        """As often, since asv sets up anew before every call that it times."""
        image = self.images[:1].copy()
        for _ in range(1000):
            self.network.predict_proba(image)

    def time_10000_images(self, backend):
        self.network.predict_proba(self.images)
