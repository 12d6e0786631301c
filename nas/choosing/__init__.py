"""Choosing one: knee, limits and savings, energy and battery, and a brief to begin with."""
