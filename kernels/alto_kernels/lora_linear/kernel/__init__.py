"""Triton kernels and their launchers. No autograd here."""
