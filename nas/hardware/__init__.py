"""What a network costs on a device: memory plan, bytes, cycles, and what fits."""
