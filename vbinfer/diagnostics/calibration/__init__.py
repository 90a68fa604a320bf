"""Calibration: are posteriors right on average over simulated data?"""
