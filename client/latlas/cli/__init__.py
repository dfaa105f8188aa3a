"""The command line: one module per command group, `main` runs them."""
