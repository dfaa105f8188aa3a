"""What a running coordinator holds in memory; everything that must last is in the store."""
