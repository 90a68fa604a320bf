"""The command line: `vbinfer demo` and `vbinfer run study.toml`."""
