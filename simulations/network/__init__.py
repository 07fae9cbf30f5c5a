"""The network of a simulation: messages handed over in this process, and volunteers that vanish.

Knows neither scenarios nor rounds; what a message means is its receiver's affair.
"""
