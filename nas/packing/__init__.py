"""Weights and constants in the order and form in which the C kernels read them."""
