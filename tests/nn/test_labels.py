"""Label encoding, compared with `numpy.unique`."""

import numpy as np
import pytest

from fmnist_fast.nn.labels import MAX_TABLE, encode_labels, unique_labels

INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 3, 7]),
        np.array([5]),
        np.array([-128, 127, 0] * 100, np.int8),
        np.array([0, 255] * 200, np.uint8),
        np.array([2**64 - 1, 2**64 - 2] * 3, np.uint64),
        np.array([INT64.min, INT64.max]),
        np.array([INT64.min, INT64.min + 1] * 2),
        np.array([INT64.max, INT64.max - 1] * 2),
        np.array([0, MAX_TABLE]),
        np.arange(MAX_TABLE + 1),
        np.array(["shirt", "bag", "bag"]),
        np.array([1.0, 0.0, 1.0]),
        np.array([True, False, True]),
    ],
    ids=lambda labels: f"{labels.dtype}-{len(labels)}-{labels[0]}",
)
def test_unique_and_encode_labels_match_numpy_unique(labels):
    classes, codes = np.unique(labels, return_inverse=True)
    found = unique_labels(labels)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, classes)
    encoded_n = encode_labels(labels, classes)
    assert encoded_n.dtype == np.int32
    np.testing.assert_array_equal(encoded_n, codes)


def test_encode_labels_accepts_unused_classes():
    np.testing.assert_array_equal(
        encode_labels(np.array([4, 9, 4]), np.array([1, 4, 5, 9])), [1, 3, 1]
    )
