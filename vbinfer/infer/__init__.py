"""Inference: draws, neural estimators and samplers, all ending in a `Posterior`."""

from . import embeddings as embeddings
