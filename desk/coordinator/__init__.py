"""The coordinator's page: rounds, volunteers, invitations, versions, and their orders."""
