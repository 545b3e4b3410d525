"""The adapters of an executor: their rows side by side, their optimizer, their files."""
