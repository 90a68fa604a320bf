"""Receptors of synapses."""
