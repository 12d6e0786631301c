"""How networks are trained, taught and judged, in processes."""
