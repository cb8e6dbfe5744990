"""Which projects there are and where their data is: from the settings and a governance repository."""
