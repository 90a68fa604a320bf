"""Channels: one file each."""
