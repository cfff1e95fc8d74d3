import os
import subprocess
import sys

from codefleet.execution import guardian


def test_children_are_found_without_the_kernel_s_list_of_them():
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in guardian._searched_children(os.getpid())
        assert child.pid in guardian._listed_children(os.getpid())
        assert guardian._searched_children(child.pid) == guardian._listed_children(child.pid) == []


def test_the_guardian_imports_nothing_that_is_not_of_the_standard_library():
    script = (
        "import sys; sys.argv=['x']; import runpy; runpy.run_path(sys.stdin.read(), run_name='g'); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], input=guardian.__file__, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [name for name in loaded if name.startswith(("codefleet", "msgspec"))]
    assert "asyncio" not in loaded
