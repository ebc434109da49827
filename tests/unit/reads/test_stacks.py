"""Stack traces: whose code is it, and where to look first."""

from app.reads.stacks import MOST_LINES, lines

PYTHON = """Traceback (most recent call last):
  File "/srv/app/orders.py", line 8, in order
    charge()
  File "/srv/.venv/lib/python3.12/site-packages/httpx/_client.py", line 99, in send
    raise exc
  File "/srv/app/pay.py", line 3, in charge
    raise Declined()
app.pay.Declined: no"""
JAVASCRIPT = """Error: no
    at send (/srv/node_modules/undici/index.js:9:1)
    at charge (/srv/src/pay.ts:12:3)
    at order (/srv/src/order.ts:4:1)
    at process.processTicks (node:internal/process/task_queues:95:5)"""


def test_in_python_the_own_frame_nearest_the_error_is_marked() -> None:
    marked = [line.text.strip() for line in lines(PYTHON) if line.is_first]
    assert marked == ['File "/srv/app/pay.py", line 3, in charge']


def test_in_javascript_the_first_own_frame_is_marked() -> None:
    marked = [line.text.strip() for line in lines(JAVASCRIPT) if line.is_first]
    assert marked == ["at charge (/srv/src/pay.ts:12:3)"]


def test_library_frames_and_their_source_lines_are_quiet() -> None:
    quiet = [line.text.strip() for line in lines(PYTHON) if line.kind == "library"]
    assert quiet[-1] == "raise exc"


def test_endless_recursion_is_cut_in_the_middle() -> None:
    shown = lines("Traceback\n" + '  File "/srv/a.py", line 1, in f\n' * 5000)
    assert len(shown) <= MOST_LINES + 1
    assert any(line.text == "…" for line in shown)


def test_no_stack_is_no_lines() -> None:
    assert lines(None) == ()
