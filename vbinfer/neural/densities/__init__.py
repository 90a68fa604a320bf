"""Conditional densities: flows and mixtures."""
