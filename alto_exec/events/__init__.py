"""What goes between a backend and its run: what comes, what is told, what a log had told."""
