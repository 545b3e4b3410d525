"""What runs on a node of the cluster, and what it and the head say to each other."""
