"""The rules of workflow documents: what may be written, read into plain values or refused with every wrong place.

Pure, and shared by the control plane, which compiles and stores what it reads, and by the SDK, which checks a document
where it is written. Imports nothing of ours: no plugin, agent or run is known here.
"""
