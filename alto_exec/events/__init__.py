"""What goes between a backend and its run: what comes, what is told, what the log had told
before.
"""
