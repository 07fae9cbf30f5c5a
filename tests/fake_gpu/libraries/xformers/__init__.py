"""Starts CUDA when it is imported."""

import stand_in_driver as driver

driver.start("xformers")
