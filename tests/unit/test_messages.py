import msgspec
import pytest

from codefleet.messages import (
    CancelRequested,
    Control,
    Grant,
    Grants,
    Hint,
    InboxFilled,
    SlotFreed,
    TaskChanged,
    TasksReady,
    WorkersChanged,
)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            Grants(
                grants=[
                    Grant(task_id="a", epoch=1, attempt=0, type="agent"),
                    Grant(task_id="b", epoch=2, attempt=0, type="agent"),
                ]
            ),
            Grants,
        ),
        (Grants(grants=[]), Grants),
        (InboxFilled(), Control),
        (CancelRequested(task_id="a"), Control),
        (TasksReady(), Hint),
        (SlotFreed(worker_id="w", task_id="a", epoch=1), Hint),
        (WorkersChanged(), Hint),
        (TaskChanged(task_id="a"), TaskChanged),
    ],
)
def test_what_is_sent_is_what_is_read(message: msgspec.Struct, kind: object):
    assert msgspec.json.decode(msgspec.json.encode(message), type=kind) == message
    assert msgspec.convert(msgspec.to_builtins(message), kind) == message


@pytest.mark.parametrize(
    "raw",
    [
        {"grants": [], "version": 2},
        {"grants": [], "version": "1"},
        {"version": 1},
        {"grants": [{"task_id": "a"}], "version": 1},
        {"grants": [{"task_id": "a", "epoch": "1"}], "version": 1},
        {"grants": [{"task_id": None, "epoch": 1}], "version": 1},
        {"grants": {"task_id": "a", "epoch": 1}},
        [],
        "grants",
        None,
    ],
)
def test_grants_of_another_version_or_shape_are_refused(raw: object):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw, Grants)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"type":"tasks_ready"}', Control),
        (b'{"type":"inbox_filled"}', Hint),
        (b'{"type":"something_new"}', Hint),
        (b'{"type":"slot_freed","worker_id":"w"}', Hint),
        (b'{"type":"cancel_requested","task_id":1}', Control),
        (b"{}", Control),
        (b"", Control),
        (b"\xff\xfe", Hint),
        (b"[" * 20_000, Hint),
    ],
)
def test_notices_of_another_kind_or_garbage_are_refused(raw: bytes, kind: object):
    with pytest.raises((msgspec.MsgspecError, RecursionError)):
        msgspec.json.decode(raw, type=kind)
