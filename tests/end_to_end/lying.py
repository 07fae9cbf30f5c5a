"""`nomoat` of a member whose updates are lies: python lying.py ATTACK COMMAND…

It trains as asked and keeps to every message's form; what it masks is eight times what it learnt,
or whatever else ATTACK says (nomoat.simulations.adversaries.kinds).
"""

from __future__ import annotations

import sys

from nomoat.client.volunteer import own_rules
from nomoat.simulations.adversaries.kinds import Attack
from nomoat.simulations.adversaries.updates import lying

if __name__ == "__main__":
    own_rules.RoundSession = lying(Attack(sys.argv.pop(1)))  # type: ignore[misc]
    from nomoat.__main__ import main

    main()
