"""What was found in the visits of a campaign, in words: the same in listings, pages and tables."""

from __future__ import annotations


def suspicions_in_words(n_found: int, n_revisited: int, n_open: int) -> str:
    """How many were found, visited again, and are left; `none` for none."""
    if not n_found:
        return "none"
    left = "none is left" if not n_open else f"{n_open} {'is' if n_open == 1 else 'are'} left"
    return f"{n_found} found, {n_revisited} visited again, {left}"


def not_looked_at_in_words(is_running: bool) -> str:
    """What stands in place of findings where there are none, which is not the same as `none`."""
    return "not looked at yet" if is_running else "not looked at"


def precision_in_words(
    entry_error: float | None,
    label_error: float | None,
    target_error: float,
    n_labels_unknown: int = 0,
) -> tuple[str, ...]:
    """How precise a campaign's figures are, a line each; none where there are no such figures.

    Args:
        entry_error: relative error that the noise of entries adds to a network.
        label_error: largest relative standard error of a network's own latency.
        target_error: what was wanted of both; 0 for nothing.
        n_labels_unknown: networks whose own error is not known.
    """
    unknown = f"{n_labels_unknown} network{'' if n_labels_unknown == 1 else 's'} not known"
    lines = []
    if entry_error is not None:
        line = f"entries' noise costs a network {_percent(entry_error)}"
        lines.append(line + _wanted_in_words(entry_error, target_error))
    if label_error is not None:
        line = f"latencies of networks are known to {_percent(label_error)}"
        line += _wanted_in_words(label_error, target_error)
        lines.append(f"{line}; {unknown}" if n_labels_unknown else line)
    elif n_labels_unknown:
        lines.append(f"noise in latencies of networks: {unknown}")
    return tuple(lines)


def _wanted_in_words(error: float, target_error: float) -> str:
    if not target_error:
        return ""
    missed = ": not reached, more --extra-rounds may" if error > target_error else ""
    return f", wanted {_percent(target_error)}{missed}"


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %"
