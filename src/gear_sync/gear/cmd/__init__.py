"""Commands: `geard`."""
