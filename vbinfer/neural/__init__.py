"""Neural estimators of posteriors, likelihoods and ratios."""

from . import embeddings as embeddings
