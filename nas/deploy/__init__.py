"""From a trained model to C: packing, generated source, compilers, the bundle's folder."""
