"""One executor on several ranks: the one that leads, those that follow, and how they come up."""
