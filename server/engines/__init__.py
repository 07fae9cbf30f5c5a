"""The engines that a community's records can live in: SQLite and PostgreSQL, and moves between.

Statements are written once, in the SQL that both understand, with `?` for a value; everything in
which the two differ is in the file of each.
"""
