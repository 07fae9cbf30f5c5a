"""Python runs this before anything else where this folder is on PYTHONPATH: there is a GPU now."""

import stand_in

stand_in.install()
