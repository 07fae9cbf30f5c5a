"""The look of all pages: templates, one style sheet, one script, charts, live parts.

Nothing here knows of communities: it is given frozen views and makes HTML of them.
"""
