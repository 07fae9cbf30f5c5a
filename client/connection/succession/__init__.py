"""The keys of a community as a volunteer follows them, from the one it knows to the present one."""
