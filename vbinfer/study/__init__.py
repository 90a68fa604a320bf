"""Study files: from TOML to a posterior and its report."""
