"""Numbers for people."""


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def spread(share: float | None, deviation: float | None = None) -> str:
    """A share in per cent, with its deviation over seeds where there is one; empty where it was not measured."""
    if share is None:
        return ""
    return percent(share) if deviation is None else f"{100 * share:.2f} ± {100 * deviation:.2f} %"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def amount(size: int) -> str:
    """Bytes."""
    if size < 1024:
        return f"{size} B"
    return f"{size / 2**10:.1f} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"
