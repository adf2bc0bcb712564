"""Whether the rows of an installation keep the invariants: a pure judge of the rows of one run, and who feeds it.

Numbers such as I5 name the invariants of the reliability rules. Judging never writes and takes no lock.
"""
