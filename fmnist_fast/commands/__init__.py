"""The commands of `fmnist-fast`, one module for each kind."""
