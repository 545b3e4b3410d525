"""A pass over sequences of several jobs: laid out, weighed, launched or replayed, in training and
in evaluation.
"""
