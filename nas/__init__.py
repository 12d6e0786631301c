"""Hardware-aware neural architecture search for microcontrollers with several sensors."""

__version__ = "0.1.0"
