"""Per-example gradients: one forward, one backward, a rule for each kind of layer."""
