"""`latlas quickstart`: the whole loop on one machine; `run.run_quickstart` is its front door."""
