"""The first steps of training are those of PyTorch and of scikit-learn, in float64.

The two write the same formulas in another order, so that only rounding differs. A gradient is a sum
of at most 784 products, off by at most some 1e3 eps = 2e-13 of the sum of its terms' sizes
(Higham 2002, section 3.1). Adam divides a gradient by its own size, so that this error counts over
the gradient: even where the terms cancel to a hundredth of their size, a step is off by 2e-11 of
itself, and twenty steps by 4e-10 of lr. Adding the steps to a weight below 1 rounds it by
20 eps = 4e-12 of lr more. Hence 1e-9 lr. A test plants mistakes (a penalty off by a hundredth, an
epsilon of the other convention): these move weights by more than 1e-3 lr.
"""

import numpy as np
import pytest

from fmnist_fast.kernels.interface import NetworkSpec, TrainData
from fmnist_fast.nn.network import PIXEL_SCALE, Network
from fmnist_fast.nn.optimizers import Adam

SPEC = NetworkSpec((784, 32, 16, 10), dtype="float64")
STEPS, BATCH, LR, L2, EPSILON = 20, 64, 1e-3, 1e-2, 1e-8
TOLERANCE = 1e-9 * LR
MISTAKE = 1e-3 * LR


@pytest.fixture
def data(small_dataset) -> TrainData:
    """600 synthetic images: twenty steps are two epochs, each with a smaller last batch."""
    count = len(small_dataset.x_train)
    x_ni = np.ascontiguousarray(small_dataset.x_train).reshape(count, -1)
    return TrainData(x_ni, PIXEL_SCALE, small_dataset.y_train.astype(np.int32), np.ones(count))


def batches(data):
    """Return the rows of every step."""
    rows = np.arange(len(data.x_ni), dtype=np.int32)
    epoch = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
    return [epoch[step % len(epoch)] for step in range(STEPS)]


def ours(data, l2=L2, plain_epsilon=False, l2_over_batch=False):
    """Weights and biases after STEPS steps of the numpy backend.

    plain_epsilon, l2_over_batch : Adam's epsilon and the penalty as scikit-learn has them.
    """
    network = Network.random(SPEC, 0, PIXEL_SCALE, "numpy", 1)
    state = network.fresh_state()
    for step, rows in enumerate(batches(data)):
        steps = Adam(epsilon=EPSILON).steps(np.full(1, LR), step, len(rows), l2)
        if plain_epsilon:
            steps = steps._replace(epsilon_t=np.full(1, EPSILON))
        if l2_over_batch:
            steps = steps._replace(l2_t=np.full(1, l2 / len(rows)))
        network.train_steps(state, data, rows, steps, 0, 1)
    return [*state.params.weights, *state.params.biases]


def max_difference(mine, theirs):
    return max(np.abs(a - b).max() for a, b in zip(mine, theirs, strict=True))


def by_pytorch(data):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    params = Network.random(SPEC, 0, PIXEL_SCALE, "numpy", 1).params
    weights = [torch.tensor(w, requires_grad=True) for w in params.weights]
    biases = [torch.tensor(b, requires_grad=True) for b in params.biases]
    optimizer = torch.optim.Adam([*weights, *biases], lr=LR, eps=EPSILON)
    cross_entropy = torch.nn.CrossEntropyLoss()
    for rows in batches(data):
        a = torch.tensor(data.x_ni[rows], dtype=torch.float64) * PIXEL_SCALE
        for w, b in zip(weights[:-1], biases[:-1]):
            a = torch.relu(a @ w + b)
        targets = torch.tensor(data.targets_n[rows], dtype=torch.int64)
        loss = cross_entropy(a @ weights[-1] + biases[-1], targets)
        loss = loss + L2 / 2 * sum((w**2).sum() for w in weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().numpy() for p in (*weights, *biases)]


def by_scikit_learn(data):
    neural_network = pytest.importorskip(
        "sklearn.neural_network", reason="scikit-learn is not installed"
    )
    x_ni = data.x_ni * PIXEL_SCALE
    model = neural_network.MLPClassifier(
        SPEC.sizes[1:-1],
        alpha=L2,
        batch_size=BATCH,
        learning_rate_init=LR,
        epsilon=EPSILON,
        shuffle=False,
        random_state=0,
    )
    # The first call draws weights and trains: replace weights and moments.
    model.partial_fit(x_ni, data.targets_n, classes=np.arange(SPEC.sizes[-1]))
    params = Network.random(SPEC, 0, PIXEL_SCALE, "numpy", 1).params
    model.coefs_ = [w.copy() for w in params.weights]
    model.intercepts_ = [b.copy() for b in params.biases]
    del model._optimizer
    for _ in range(STEPS // len(range(0, len(x_ni), BATCH))):
        model.partial_fit(x_ni, data.targets_n)
    return [*model.coefs_, *model.intercepts_]


def test_train_steps_first_steps_match_pytorch(data):
    theirs = by_pytorch(data)
    assert max_difference(ours(data), theirs) < TOLERANCE
    assert max_difference(ours(data, l2=1.01 * L2), theirs) > MISTAKE
    assert max_difference(ours(data, plain_epsilon=True), theirs) > MISTAKE


def test_train_steps_first_steps_match_scikit_learn(data):
    theirs = by_scikit_learn(data)
    assert max_difference(ours(data, plain_epsilon=True, l2_over_batch=True), theirs) < TOLERANCE
    assert max_difference(ours(data, l2_over_batch=True), theirs) > MISTAKE
    assert max_difference(ours(data, plain_epsilon=True), theirs) > MISTAKE
