"""The rules of runs, steps and attempts: pure decisions, no I/O, clock, randomness, logging, protobuf or SQL."""
