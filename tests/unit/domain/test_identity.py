import pytest

from codefleet.domain.identity import Identity, Role


@pytest.mark.parametrize(
    ("role", "sees_all", "submits", "controls_own", "controls_others"),
    [
        (Role.SUBMITTER, False, True, True, False),
        (Role.MONITOR, True, False, False, False),
        (Role.ADMIN, True, True, True, True),
    ],
)
def test_each_role_may_do_its_part(role, sees_all, submits, controls_own, controls_others):
    identity = Identity(user_id="u", role=role)
    assert identity.sees_all is sees_all
    assert identity.may_submit is submits
    assert identity.may_control("u") is controls_own
    assert identity.may_control("somebody else") is controls_others
    assert identity.actor == "user:u"
