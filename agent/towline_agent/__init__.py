"""The agent: pulls steps from a control plane, runs their plugins in process trees of their own, reports back."""
