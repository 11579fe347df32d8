"""List the configurations that come with the package, or copy one to change it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zskt_dist import logs
from zskt_dist.errors import UserError, did_you_mean, guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.configs",
        description=__doc__,
        epilog="All of them work by name in any folder: zskt train --config digits.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the configuration to copy, for example digits")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: NAME.yaml in this folder")
    options = logs.parse(parser, argv)
    return guarded(lambda: _configs(options.name, options.file))


def _configs(name: str | None, file: Path | None) -> None:
    from zskt_dist.config.shipped import shipped

    known = shipped()
    if name is None:
        for number, (verb, names) in enumerate(_by_verb(known).items()):
            print("\n" * bool(number) + f"zskt {verb}")
            print("\n".join(f"  {each:26} {_title(known[each])}" for each in names))
        return
    source = known.get(name.removesuffix(".yaml"))
    if source is None:
        close = did_you_mean(name, known) or ";"
        raise UserError(f"no shipped configuration is named {name!r}{close} `zskt configs` lists them")
    target = file or Path(source.name)
    try:
        with target.open("x", encoding="utf-8") as copy:
            copy.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UserError(f"{target} exists already; name another file: zskt configs {name} FILE") from None
    print(f"{target} is a copy of {name}")


def _by_verb(names: dict[str, Path]) -> dict[str, list[str]]:
    """Names under the command that reads them."""
    kinds: dict[str, list[str]] = {"train --config NAME": [], "reproduce NAME": [], "sweep --config NAME": []}
    train, reproduce, sweep = kinds.values()
    for name in names:
        is_graph = name.rpartition("/")[2].startswith("graph")
        (sweep if name.startswith("sweeps/") else reproduce if is_graph else train).append(name)
    return kinds


def _title(path: Path) -> str:
    """The first line, a comment."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").rstrip(",:")


if __name__ == "__main__":
    raise SystemExit(main())
