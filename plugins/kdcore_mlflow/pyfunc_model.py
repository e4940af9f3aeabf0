"""A saved student as an MLflow model. MLflow loads this file, which imports kdcore without training code."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from kdcore import Signal, load_predictor


class ServedStudent(mlflow.pyfunc.PythonModel):
    """Class probabilities for raw recordings (B, T, …) at the modality's rate, or else at that of the training recordings."""

    def load_context(self, context) -> None:
        """Load the student, or the ensemble of students, logged with the model."""
        self.student = load_predictor(Path(context.artifacts["student"]))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context, model_input: np.ndarray, params=None
    ) -> pd.DataFrame:
        """Return class probabilities, one row per recording. For long recordings, they are averaged over windows."""
        [modality] = self.student.reads.values()
        recorded = self.student.recorded(modality.name)
        rate = modality.rate or recorded.get("rate") or 1.0
        clips = [{modality.name: Signal(each, rate)} for each in np.asarray(model_input)]
        return pd.DataFrame([self.student.predict(clip).mean(0) for clip in clips], columns=self.student.classes)


mlflow.models.set_model(ServedStudent())
