"""Draws of parameters and summaries: simulated, stored, exported."""
