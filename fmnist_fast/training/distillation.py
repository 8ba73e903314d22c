"""What networks that were trained before teach another one."""

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

__all__ = ["Teachers", "check_teacher", "teacher_id"]


@dataclass(frozen=True)
class Teachers:
    """Networks, and how another one learns from them."""

    networks: tuple[Network, ...]
    how: Distillation

    @classmethod
    def given(
        cls, teacher: Model | Ensemble, how: Distillation, backend: str, threads: int | None
    ) -> "Teachers":
        """Those of a model, or of an ensemble's members, whose logits are the calibrated ones: at
        temperature 1 they say what the teacher answers. They compute as their student does, since
        other kernels would give its targets other last bits.
        """
        calibrated = (member.calibrated_network for member in members_of(teacher))
        networks = (
            Network.from_params(n.spec, n.params, n.scale, backend, threads) for n in calibrated
        )
        return cls(tuple(networks), how)

    def say(self, x_ni: NDArray) -> NDArray[np.float64]:
        """The mean of softmax(logits / temperature), (n, k), of rows as a network takes them."""
        said_nk = np.zeros((len(x_ni), self.networks[0].spec.sizes[-1]))
        for network in self.networks:
            probability_nk = network.predict_proba(x_ni)
            said_nk += apply_temperature(probability_nk, self.how.temperature) / len(self.networks)
        return said_nk

    def targets(self, x_ni: NDArray, asked_nk: Floats) -> Floats:
        """What the student is asked to say of these rows. asked_nk : by the labels alone."""
        return mix_targets(self.say(x_ni), asked_nk, self.how.alpha)


def teacher_id(teacher: Model | Ensemble) -> str:
    """What recipes call it: "sha256:" and that of its file."""
    return f"sha256:{sha256(teacher.to_bytes()).hexdigest()}"


def check_teacher(teacher: Model | Ensemble, config: TrainingConfig, dataset: Dataset) -> None:
    """Raise ArgumentError if it cannot teach about this data set; warn if what it learned from
    makes what its student is judged by doubtful. recipe : the student's, resolved.
    """
    inputs, classes = prod(teacher.input_shape), len(teacher.class_names)
    if (prod(dataset.x_train.shape[1:]), len(dataset.class_names)) != (inputs, classes):
        raise ArgumentError(
            f"the teacher takes {inputs} inputs and knows {classes} classes; {dataset.name} has "
            f"{prod(dataset.x_train.shape[1:])} and {len(dataset.class_names)}: give one that was "
            "trained on such data"
        )
    if teacher.dataset_checksum != dataset.checksum:
        _warn(f"the teacher was trained on another data set ({teacher.dataset_name})")
        return
    trained = [member.training for member in members_of(teacher)]
    augments = {how["augment"] for how in trained if "augment" in how} - {config.augment}
    if augments:
        _warn(
            f"the teacher learned with augment {augments.pop()!r}, and its student learns with "
            f"{config.augment!r}: it has not seen such images"
        )
    # Rows are held back in one order (run.split): who holds back fewer learns from the rest.
    held_back = [how["validation"] for how in trained if isinstance(how.get("validation"), int)]
    judged_on = config.held_back(len(dataset.x_train))
    known = judged_on - min(held_back, default=judged_on)
    if known > 0:
        _warn(
            f"the teacher learned from {known:,} of the {judged_on:,} validation rows: the "
            "validation accuracy, and how sure the model is, will be too good"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
