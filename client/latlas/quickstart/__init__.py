"""The whole loop on one machine: measure, tabulate, predict, train, search, verify."""
