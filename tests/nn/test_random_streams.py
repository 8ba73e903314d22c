"""Random streams: pure functions of their arguments."""

import numpy as np

from fmnist_fast.nn.random_streams import dropout_key, epoch_order, random_stream


def test_random_stream_is_function_of_its_arguments():
    draws = {
        (seed, purpose, epoch): random_stream(seed, purpose, epoch).random()
        for seed in (0, 1, 2**63)
        for purpose in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(draws.values())) == len(draws)
    assert all(random_stream(*key).random() == value for key, value in draws.items())


def test_epoch_order_is_function_of_seed_and_epoch():
    rows_n = np.arange(3, 50, dtype=np.int32)
    orders = {
        (seed, epoch): tuple(epoch_order(rows_n, seed, epoch))
        for seed in (0, 1)
        for epoch in (1, 2)
    }
    assert len(set(orders.values())) == 4
    assert all(sorted(order) == list(rows_n) for order in orders.values())
    assert tuple(epoch_order(rows_n, 0, 2)) == orders[0, 2]
    assert epoch_order(rows_n, 0, 1).dtype == np.int32


def test_dropout_key_is_function_of_seed_and_epoch():
    keys = {dropout_key(seed, epoch) for seed in range(20) for epoch in range(1, 21)}
    assert len(keys) == 400
    assert all(0 <= key < 2**64 for key in keys)
    assert dropout_key(3, 4) == dropout_key(3, 4)
