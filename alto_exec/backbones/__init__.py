"""Frozen models: written out over our kernels, or as transformers has them."""
