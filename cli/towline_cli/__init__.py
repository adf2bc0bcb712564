"""The command `towline`: the API from a terminal, and all processes of Towline on one machine."""
