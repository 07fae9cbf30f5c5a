"""New editions of a community's terms: compared with what was agreed to, asked about, agreed to.

Pure but for what reads and writes the community's folder. What binds a task is agreement.py's.
"""
