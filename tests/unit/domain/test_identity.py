import pytest

from codefleet.domain.identity import Identity, Role


@pytest.mark.parametrize(
    ("role", "sees_all", "changes"),
    [
        (Role.SUBMITTER, False, True),
        (Role.MONITOR, True, False),
        (Role.ADMIN, True, True),
    ],
)
def test_each_role_may_do_its_part(role, sees_all, changes):
    identity = Identity(user_id="u", role=role)
    assert identity.sees_all is sees_all
    assert identity.may_change is changes
    assert identity.actor == "user:u"
