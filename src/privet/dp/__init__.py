"""Training with differential privacy: an ordinary loop, model and optimizer stay the user's own."""
