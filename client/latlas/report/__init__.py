"""The report page of a finished quickstart."""
