"""The agent: runs programs on the board it lives on and reports how long they take."""
