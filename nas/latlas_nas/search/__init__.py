"""Search for the most accurate architecture that keeps a budget."""
