"""Knowledge distillation: targets from the predictions of teacher networks."""

import warnings
from dataclasses import dataclass
from hashlib import sha256
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..data.datasets import Dataset
from ..errors import ArgumentError
from ..kernels.interface import Floats
from ..models.ensemble import Ensemble, members_of
from ..models.model import Model
from ..nn.calibration import apply_temperature
from ..nn.labels import mix_targets
from ..nn.network import Network
from .config import Distillation, TrainingConfig


@dataclass(frozen=True)
class Teachers:
    """Teacher networks, and how their predictions are mixed into a student's targets."""

    networks: tuple[Network, ...]
    how: Distillation

    @classmethod
    def from_model(
        cls, teacher: Model | Ensemble, how: Distillation, backend: str, threads: int | None
    ) -> "Teachers":
        """Return the networks of a model or of an ensemble's members, with calibrated logits.

        They compute on the backend of the student, since other kernels would change the last bits
        of its targets.
        """
        calibrated = (member.calibrated_network for member in members_of(teacher))
        networks = (
            Network.from_params(n.spec, n.params, n.scale, backend, threads) for n in calibrated
        )
        return cls(tuple(networks), how)

    def predict_soft(self, x_ni: NDArray) -> NDArray[np.float64]:
        """Return the mean over the teachers of softmax(logits / temperature), (n, k)."""
        probs_nk = np.zeros((len(x_ni), self.networks[0].spec.sizes[-1]))
        for network in self.networks:
            probability_nk = network.predict_proba(x_ni)
            probs_nk += apply_temperature(probability_nk, self.how.temperature) / len(self.networks)
        return probs_nk

    def targets(self, x_ni: NDArray, label_targets_nk: Floats) -> Floats:
        """Return the targets of the student for these rows. label_targets_nk : of the labels."""
        return mix_targets(self.predict_soft(x_ni), label_targets_nk, self.how.alpha)


def teacher_id(teacher: Model | Ensemble) -> str:
    """Return the name of a teacher in configurations: "sha256:" and the checksum of its file."""
    return f"sha256:{sha256(teacher.to_bytes()).hexdigest()}"


def check_teacher(teacher: Model | Ensemble, config: TrainingConfig, dataset: Dataset) -> None:
    """Raise ArgumentError if the teacher does not fit the data set; warn if it was trained on
    other data, or on validation rows of the student. config : of the student, resolved.
    """
    has = prod(teacher.input_shape), len(teacher.class_names)
    needs = prod(dataset.x_train.shape[1:]), len(dataset.class_names)
    if has != needs:
        raise ArgumentError(
            f"the teacher has {has[0]} inputs and {has[1]} classes; {dataset.name} has {needs[0]} "
            f"and {needs[1]}: give one that was trained on such data"
        )
    if teacher.dataset_checksum != dataset.checksum:
        _warn(f"the teacher was trained on another data set ({teacher.dataset_name})")
        return
    trained = [member.training for member in members_of(teacher)]
    augments = {how["augment"] for how in trained if "augment" in how} - {config.augment}
    if augments:
        _warn(
            f"the teacher was trained with augment {augments.pop()!r}, and the student is trained "
            f"with {config.augment!r}: the teacher has not seen such images"
        )
    # Validation rows are the first of one order (train_data.split), so that a teacher with fewer of
    # them was trained on the rest.
    validation = [how["validation"] for how in trained if isinstance(how.get("validation"), int)]
    n_validation = config.n_validation(len(dataset.x_train))
    seen = n_validation - min(validation, default=n_validation)
    if seen > 0:
        _warn(
            f"the teacher was trained on {seen:,} of the {n_validation:,} validation rows: "
            "validation accuracy and confidence of the student will be too high"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
