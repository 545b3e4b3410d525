"""The adapters of all jobs on one executor: their rows side by side, their optimizer, their
files.
"""
