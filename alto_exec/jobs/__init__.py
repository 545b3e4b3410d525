"""The jobs of one executor: the place of each, what it has come to, and what is kept of it."""
