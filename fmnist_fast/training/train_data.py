"""The data of one training: rows, targets and weights to train on, and the validation rows."""

from dataclasses import replace
from hashlib import sha256
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.augment import EpochPrefetcher, flip_rows, hflip
from ..data.datasets import Dataset
from ..data.photo_augment import PhotoAugmentation, check_photo_augmentation
from ..errors import ArgumentError
from ..kernels.interface import NetworkSpec
from ..nn.labels import smooth_labels
from ..nn.network import PIXEL_SCALE, Network, check_labels, check_rows, to_array
from ..nn.random_streams import Purpose, dropout_key, epoch_order, random_stream
from .config import TrainingConfig
from .distillation import Teachers
from .loop import EpochInputs


def resolve_config(config: TrainingConfig, dataset: Dataset) -> TrainingConfig:
    """Return the configuration with the defaults that depend on the data set, checked.

    Raises: ArgumentError.
    """
    rows = len(dataset.x_train)
    config.check(rows, len(dataset.class_names))
    hflip = dataset.hflip_invariant if config.hflip is None else config.hflip
    if config.augment:
        hflip = False  # the augmentation flips images itself
        check_photo_augmentation(dataset)
    if hflip and dataset.x_train.ndim != 3:
        raise ArgumentError("hflip needs images: this data set has rows of features")
    _check_size(config, dataset)
    config = replace(config, validation=config.n_validation(rows), hflip=hflip)
    if config.distillation and isinstance(config.distillation.teacher, TrainingConfig):
        teacher = resolve_config(config.distillation.teacher, dataset)
        config = replace(config, distillation=replace(config.distillation, teacher=teacher))
    return config


def _check_size(config: TrainingConfig, dataset: Dataset) -> None:
    """Raise ArgumentError if the kernels, which count with 32 bits, cannot count as far."""
    for i, o in network_spec(config, dataset).shapes:
        if i * o >= 1 << 31:
            raise ArgumentError(
                f"hidden is {config.hidden}: a layer of {i:,} x {o:,} weights is too large: give "
                "smaller ones"
            )
    steps = ceil(len(dataset.x_train) / config.batch_size) * config.epochs
    if steps >= 1 << 31:
        raise ArgumentError(f"epochs is {config.epochs}: {steps:,} steps are too many: give fewer")


def split(
    rows: int, validation: int, fold: tuple[int, int] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the rows to train on and those to validate on: int32, both ascending.

    fold : (index, number of folds): validate on that part of the rows, in place of `validation` of
    them; together the folds are all rows.
    A function of the arguments only, not of the seed: models of different seeds are validated on
    the same rows, and a teacher has not seen the validation rows of its student.
    """
    shuffled = random_stream(0, Purpose.VALIDATION_SPLIT).permutation(rows).astype(np.int32)
    first, last = 0, validation
    if fold:
        index, folds = fold
        first, last = index * rows // folds, (index + 1) * rows // folds
    trained = np.concatenate([shuffled[:first], shuffled[last:]])
    return np.sort(trained), np.sort(shuffled[first:last])


class TrainingSet:
    """Training and validation rows of one training.

    data : as the kernels take it; flipped images or OOD samples follow the rows.
    rows_n : those that an epoch trains on, validation_rows_n : the others.
    x_validation, y_validation : rows and labels to validate on.
    x_ood : out-of-distribution samples to calibrate with, without labels.
    label_targets_n : the targets before teachers change them.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        network: Network,
        *,
        sample_weight: ArrayLike | None = None,
        teachers: Teachers | None = None,
        fold: tuple[int, int] | None = None,
    ) -> None:
        rows, sizes = len(dataset.x_train), network.spec.sizes
        inputs, classes = sizes[0], sizes[-1]
        self.config, self.teachers, self.rows = config, teachers, rows
        x_ni = check_rows(dataset.x_train, inputs, unit_range=False, name="x_train")
        y_n = check_labels(dataset.y_train, rows, classes, name="y_train")
        self.rows_n, self.validation_rows_n = split(rows, config.n_validation(rows), fold)
        self.x_validation = x_ni[self.validation_rows_n]
        self.y_validation = y_n[self.validation_rows_n]
        self.x_ood = x_ni[:0]
        weight_k = _class_weights(config, y_n[self.rows_n], classes)
        weights_n = _check_weights(sample_weight, rows) * weight_k[y_n]
        targets_n: NDArray = y_n
        if config.label_smoothing or config.distillation:
            targets_n = smooth_labels(y_n, classes, config.label_smoothing, network.spec.dtype)
        if config.hflip:
            both = dataset.x_train_with_flips
            x_ni = (hflip(dataset.x_train) if both is None else both).reshape(-1, inputs)
            targets_n = np.concatenate([targets_n, targets_n])
            weights_n = np.concatenate([weights_n, weights_n])
        self.data = network.data(x_ni, targets_n, weights_n)
        self.images: EpochPrefetcher | None = None
        if config.augment:
            self._augment(dataset.x_train, y_n, classes, network.spec.dtype)
        self.label_targets_n = self.data.targets_n
        if not self.images:  # the rows are the same in every epoch: predict once
            self._update_teacher_targets()

    def _augment(self, images: NDArray, y_n: NDArray[np.int32], classes: int, dtype: str) -> None:
        """Train and validate on simulated photographs, and on out-of-distribution samples."""
        made = PhotoAugmentation(images, y_n, self.rows_n, self.validation_rows_n, self.config.seed)
        last = None if self.config.time_budget else self.config.epochs
        self.images = EpochPrefetcher(made.epoch_images, last)
        self.data = made.extend_targets(self.data, classes, dtype)
        self.rows_n = made.rows_n
        self.x_validation, self.x_ood = made.x_validation, made.x_ood

    def _update_teacher_targets(self) -> None:
        """Mix the predictions of the teachers for the current images into the targets."""
        if self.teachers:
            targets_nk = self.teachers.targets(self.data.x_ni, self.label_targets_n)
            self.data = self.data._replace(targets_n=targets_nk)

    def start_epoch(self, epoch: int) -> EpochInputs:
        """Return the inputs of an epoch: a pure function of its number."""
        config = self.config
        order_n = epoch_order(self.rows_n, config.seed, epoch)
        if config.hflip:
            order_n = flip_rows(order_n, self.rows, config.seed, epoch)
        if self.images:
            self.data = self.data._replace(x_ni=self.images.get(epoch))
            self._update_teacher_targets()
        key = dropout_key(config.seed, epoch) if config.dropout else 0
        return EpochInputs(self.data, order_n, config.l2, dropout_key=key)

    def targets_checksum(self) -> str:
        """Return the SHA-256 of weights and targets; of labels if they change by epoch."""
        targets_n = self.label_targets_n if self.images else self.data.targets_n
        digest = sha256(np.ascontiguousarray(targets_n).data)
        digest.update(np.ascontiguousarray(self.data.weights_n).data)
        return digest.hexdigest()

    def close(self) -> None:
        """Stop the thread that makes images."""
        if self.images:
            self.images.close()


def _class_weights(config: TrainingConfig, y_n: NDArray, classes: int) -> NDArray[np.float64]:
    weight_k = np.ones(classes)
    if config.class_weight == "balanced":
        count_k = np.bincount(y_n, minlength=classes)
        weight_k = len(y_n) / (classes * np.maximum(count_k, 1))
    elif isinstance(config.class_weight, tuple):
        for label, weight in config.class_weight:
            weight_k[label] = weight
    return weight_k


def _check_weights(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    if sample_weight is None:
        return np.ones(rows)
    array = to_array(sample_weight, "sample_weight")
    if array.shape != (rows,):
        raise ArgumentError(f"sample_weight has shape {array.shape}: give one a row, ({rows},)")
    if array.dtype.kind not in "biuf":
        raise ArgumentError(f"sample_weight has dtype {array.dtype}: give numbers")
    weights_n = np.ascontiguousarray(array, dtype=np.float64)
    if not (np.isfinite(weights_n).all() and weights_n.min() >= 0 and weights_n.any()):
        raise ArgumentError("sample_weight must be finite, not negative, and not 0 for all rows")
    return weights_n


def network_spec(config: TrainingConfig, dataset: Dataset) -> NetworkSpec:
    """Return the structure of the network that a configuration trains."""
    sizes = (prod(dataset.x_train.shape[1:]), *config.hidden, len(dataset.class_names))
    return NetworkSpec(sizes, dtype=config.dtype, dropout=config.dropout)


def pixel_scale(dataset: Dataset) -> float:
    """Return 1/255 if rows are pixels (bytes, or images as floats in 0..1), else 1."""
    if dataset.x_train.dtype == np.uint8:
        return PIXEL_SCALE
    parts = (dataset.x_train, dataset.x_test)
    images = dataset.x_train.ndim > 2 and all(x.min() >= 0 and x.max() <= 1 for x in parts)
    return PIXEL_SCALE if images else 1.0
