"""From the files that a study names to tokens, and to those among them that are to be predicted."""
