"""A pass over sequences of several jobs, in training and in evaluation."""
