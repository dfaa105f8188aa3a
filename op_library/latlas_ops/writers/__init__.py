"""Model writers: from a network to a file or module that a runtime can run."""
