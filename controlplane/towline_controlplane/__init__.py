"""The control plane: owns the state of every run and leases ready steps to agents."""
