"""Image sets that supernets are trained and judged on."""
