"""Commands that open pages: `nomoat status --web`, `nomoat up` with its page, `nomoat page`.

They are wider forms of the rooms' own commands, which the front door puts in their place.
"""
