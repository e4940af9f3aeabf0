"""A saved student as an MLflow model: MLflow reads this file, it imports kdcore and nothing of the training."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np

from kdcore.contracts.modality import Signal
from kdcore.training.student import load_predictor


class ServedStudent(mlflow.pyfunc.PythonModel):
    """Class probabilities for raw recordings (B, T, …) at the modality's nominal rate."""

    def load_context(self, context) -> None:
        """Load the student that was logged with the model."""
        self.student = load_predictor(Path(context.artifacts["student"]))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context, model_input: np.ndarray, params=None
    ) -> np.ndarray:
        """(B, classes); of a recording longer than the student's window, the mean over windows."""
        modality = next(iter(self.student.reads.values()))
        rate = modality.rate or 1.0
        return np.stack([self.student.predict({modality.name: Signal(each, rate)}).mean(0) for each in np.asarray(model_input)])


mlflow.models.set_model(ServedStudent())
