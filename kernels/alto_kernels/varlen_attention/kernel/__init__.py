"""Triton kernels and their launchers. No autograd here.

A program makes a block of rows of one sequence: blocks are counted from the sequence's own first
row, so a sequence gets the same bits whatever is beside it. Grids have room for the longest
sequence; programs behind the end of a shorter one leave. Blocks with most to do come first.
"""
