"""The one exception that reaches a user: a mistake of theirs, told in one line."""

__all__ = ["UserError"]


class UserError(ValueError):
    """Names the file and field at fault, the value, and what would be right."""
