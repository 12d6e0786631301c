"""A Cortex-M4 that runs a compiled model: exact outputs, counted instructions, modelled cycles."""
