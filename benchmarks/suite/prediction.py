"""Predictions from Python, including the checks of the input."""

import numpy as np

from .cases import PerBackend, dataset, training


class Predict(PerBackend):
    def setup(self, backend):
        super().setup(backend)
        self.network = training(backend, rows=1)[0]
        self.images = np.resize(dataset().x_test, (10_000, 784))
        self.network.predict_proba(self.images)

    def time_one_image_1000_times(self, backend):
        """Repeated, since asv runs the setup before every timed call."""
        image = self.images[:1].copy()
        for _ in range(1000):
            self.network.predict_proba(image)

    def time_10000_images(self, backend):
        self.network.predict_proba(self.images)
