"""What is older than the window does not count, a tenth at a time."""

from outrider.calls.window import Window


def test_calls_drop_out_when_they_are_old() -> None:
    window = Window(2.0)
    window.add(10.0, failed=True, slow=False)
    window.add(10.3, failed=False, slow=True)
    assert (window.calls, window.failed, window.slow) == (2, 1, 1)
    window.add(11.9, failed=False, slow=False)
    assert window.calls == 3
    window.add(12.1, failed=False, slow=False)
    assert (window.calls, window.failed, window.slow) == (3, 0, 1)
    window.add(60.0, failed=False, slow=False)
    assert (window.calls, window.failed, window.slow) == (1, 0, 0)


def test_it_forgets_everything_when_told() -> None:
    window = Window(2.0)
    window.add(10.0, failed=True, slow=True)
    window.clear()
    assert (window.calls, window.failed, window.slow) == (0, 0, 0)
