"""Processes of our own for what Lava lacks, as they run in Lava's environment: whole numbers, numpy and Lava alone.

Each process stands in a folder of its own, `FOLDER/process.py`, since Lava's compiler executes every file beside that
of a process; what they share stands here. An exported folder holds copies of them (`unscan.targets.lava.folder`).
"""
