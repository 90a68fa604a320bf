"""Calibration: whether the posteriors of a method are right on average over simulated data."""
