"""Files: arrays, tables, locks, folders and fingerprints."""
