"""Who is asking."""

from enum import StrEnum

import msgspec


class Role(StrEnum):
    SUBMITTER = "submitter"
    """Submits, sees and controls its own tasks."""
    MONITOR = "monitor"
    """Sees everything, changes nothing."""
    ADMIN = "admin"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str
    role: Role
    key_id: str = ""

    @property
    def actor(self) -> str:
        """How this identity is named in a task's history."""
        return f"user:{self.user_id}"

    @property
    def sees_all(self) -> bool:
        return self.role is not Role.SUBMITTER

    @property
    def may_change(self) -> bool:
        return self.role is not Role.MONITOR
