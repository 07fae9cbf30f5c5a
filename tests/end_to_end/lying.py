"""`nomoat` of a member whose updates are lies: python lying.py ATTACK COMMAND…

It keeps to every message's form; what it masks is eight times its update (arithmetic.py), or
whatever else ATTACK says (nomoat.simulations.adversaries.kinds).
"""

from __future__ import annotations

import sys

from arithmetic import by_arithmetic

from nomoat.client.volunteer import own_rules
from nomoat.simulations.adversaries.kinds import Attack
from nomoat.simulations.adversaries.updates import lying

if __name__ == "__main__":
    by_arithmetic()
    own_rules.RoundSession = lying(Attack(sys.argv.pop(1)))  # type: ignore[misc]
    from nomoat.__main__ import main

    main()
