"""The store: the only SQL. Functions take a transaction first, work on many rows at once, and decide nothing."""
