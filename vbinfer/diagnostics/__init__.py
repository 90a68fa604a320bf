"""Diagnostics: whether to believe a posterior."""
