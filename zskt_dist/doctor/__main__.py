"""Say whether this machine can train: versions, devices, memory, disk, Ray, MLflow, DeepSpeed, and what to do."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zskt_dist import arguments
from zskt_dist.errors import UserError, guarded


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m zskt_dist.doctor",
        description=__doc__,
        epilog="Exit code 0: what a run needs works; 2: the configuration, torch, runs_dir, or what is asked for "
        "(device=cuda, launch.kind=ray, engine.kind=deepspeed) does not.",
    )
    parser.add_argument("--config", metavar="FILE", help="look at what this file asks for")
    parser.add_argument("--teacher", metavar="NET", help="look at this network instead: timm:NAME, module:callable")
    parser.add_argument("--checkpoint", metavar="FILE", help="its weights; without them it is looked at untrained")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys, for example runs_dir=s3://…")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the findings to FILE")
    options = arguments.parse(parser, argv)
    if options.checkpoint and not options.teacher:
        parser.error("--checkpoint: give the network that the weights belong to, too: --teacher NET")
    return guarded(lambda: _teacher(options) if options.teacher else _doctor(options))


def _teacher(options: argparse.Namespace) -> None:
    from zskt_dist.config import load_config
    from zskt_dist.doctor.teacher import look_at
    from zskt_dist.files import check_json, write_json

    if options.json:
        check_json(options.json)
    given = {"teacher.arch": options.teacher, "teacher.checkpoint": options.checkpoint}
    named = [f"{key}={value}" for key, value in given.items() if value]
    own = [] if options.config else ["data.name=none"]
    found = look_at(load_config(options.config, [*own, *named, *options.overrides]))
    for topic, text in found:
        print(f"{topic:9}{text}")
    if options.json:
        write_json(options.json, dict(found))


def _doctor(options: argparse.Namespace) -> None:
    from zskt_dist.doctor.findings import examine, healthy
    from zskt_dist.files import check_json, write_json

    if options.json:
        check_json(options.json)
    findings = []
    for finding in examine(options.config, options.overrides):
        findings.append(finding)
        print(finding, flush=True)
    works = healthy(findings)
    if options.json:
        write_json(options.json, {"works": works, "findings": [vars(finding) for finding in findings]})
    if not works:
        raise UserError("something that a run needs does not work; see the problems above")


if __name__ == "__main__":
    raise SystemExit(main())
