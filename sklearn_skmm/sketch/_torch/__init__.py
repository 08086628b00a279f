"""Sketched per-sample gradients of torch models: the only folder that imports torch."""

from sklearn_skmm.sketch._torch._model_gradients import ModelGradients

__all__ = ["ModelGradients"]
