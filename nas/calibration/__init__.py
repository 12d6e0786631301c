"""Measures the kernels on the emulated chip and fits the coefficients that costs are made of."""
