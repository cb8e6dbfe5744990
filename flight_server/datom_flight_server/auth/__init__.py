"""Tokens, and what their holders may do."""
