"""Architecture search: elastic supernets, their training, accuracy prediction, and evolution."""
