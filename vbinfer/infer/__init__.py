"""Inference: draws, neural estimators and samplers, all ending in a `Posterior`."""
