"""One pass by several ranks: how they talk, and a frozen model of which each keeps a shard."""
