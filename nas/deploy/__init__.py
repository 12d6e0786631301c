"""From a trained model to C: generated source, compilers, the bundle's folder."""
