"""The plugins that every agent has, one module each, and `catalog`, the data that describes them.

Each is called by its entry point like any other plugin and knows nothing of agents or control planes.
"""
