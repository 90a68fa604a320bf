from .sweeps import sweep as sweep
