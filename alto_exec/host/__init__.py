"""The machine and the process that an executor is in."""
