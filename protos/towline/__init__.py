"""The contract: messages and stubs generated from the protos in this folder, and nothing else."""
